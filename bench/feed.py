"""A cluster that exists on paper: its objects, and a Kubernetes API server that streams them and what happens to them.

`python -m bench.feed PORT` serves it in a process of its own. Objects have the fields and the size that real ones have
(a pod about 4.5 KB), because reading them is part of what is measured. POST /bench/pods and /bench/policy make things
happen; their answers say when, by the clock that all processes of this machine share.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from aiohttp import web

from ambient.kube.objects import KINDS, resources

PODS: Final = 10_000
SERVICES: Final = 1_000
POLICIES: Final = 1_000
NODES: Final = 50
NAMESPACES: Final = 100
_PER_SERVICE: Final = PODS // SERVICES
Object = dict[str, Any]


def objects() -> Iterator[Object]:
    """The whole cluster: ten pods to a service, its slice and its policy; ten services to a namespace."""
    for number in range(NAMESPACES):
        labels = {"istio.io/dataplane-mode": "ambient"}
        yield _object("Namespace", f"team-{number}", "", metadata={"labels": labels}, spec={"finalizers": ["x"]})
    yield _object("Namespace", "istio-system", "")
    for number in range(NODES):
        labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": f"z{number % 3}"}
        yield _object("Node", node(number), "", metadata={"labels": labels}, spec={"podCIDR": f"10.{number}.0.0/16"})
    for number in range(SERVICES):
        yield _service(number)
        yield _slice(number)
    for number in range(POLICIES):
        yield policy(number, 8080)
    for number in range(PODS):
        yield pod(number, ready=True)


def node(number: int) -> str:
    return f"node-{number}.eu-central.compute.internal"


def space(service: int) -> str:
    """The namespace of a service and its pods."""
    return f"team-{service % NAMESPACES}"


def pod(number: int, *, ready: bool) -> Object:
    """One of the ten pods of a Deployment, as a kubelet has reported it."""
    service = number // _PER_SERVICE
    name = f"service-{service}"
    address = f"10.{64 + number // 65536}.{number // 256 % 256}.{number % 256}"
    stamp = "2026-01-01T00:00:00Z"
    condition = {"lastProbeTime": None, "lastTransitionTime": stamp, "observedGeneration": 1}
    types = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    return _object(
        "Pod",
        f"{name}-7d9c65b8f4-{number:05x}",
        space(service),
        metadata={
            "labels": {"app": name, "version": "v1", "pod-template-hash": "7d9c65b8f4", "team": space(service)},
            "annotations": {"ambient.istio.io/redirection": "enabled", "prometheus.io/scrape": "true"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-7d9c65b8f4",
                                 "uid": "8f14e45f-ceea-467f-a0e6-7b1c1f8f3b2a", "controller": True}],
            "managedFields": [_managed("kube-controller-manager", 12), _managed("kubelet", 14)],
        },
        spec={
            "nodeName": node(number % NODES),
            "serviceAccountName": name,
            "serviceAccount": name,
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "containers": [
                {
                    "name": "main",
                    "image": f"registry.example.com/{space(service)}/{name}:1.42.0",
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "env": [{"name": f"SETTING_{n}", "value": f"value-of-setting-{n}"} for n in range(10)],
                    "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "50m", "memory": "128Mi"}},
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}},
                    "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets", "readOnly": True}],
                }
            ],
            "volumes": [{"name": "token", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {}}]}}],
            "tolerations": [{"key": f"node.kubernetes.io/{x}", "operator": "Exists"} for x in ("not-ready", "gone")],
        },
        status={
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": f"172.16.0.{number % NODES}",
            "conditions": [{"type": t, "status": str(ready or "eady" not in t), **condition} for t in types],
            "containerStatuses": [{"name": "main", "ready": ready, "restartCount": 0, "state": {"running": {}},
                                   "imageID": f"registry.example.com/x@sha256:{number:064x}"}],
        },
    )  # fmt: skip


def policy(number: int, port: int) -> Object:
    """Who may call service `number`."""
    name = f"service-{number}"
    caller = f"cluster.local/ns/{space(number)}/sa/service-{(number + NAMESPACES) % SERVICES}"
    rules = [{"from": [{"source": {"principals": [caller]}}], "to": [{"operation": {"ports": [str(port)]}}]}]
    spec = {"selector": {"matchLabels": {"app": name}}, "action": "ALLOW", "rules": rules}
    return _object("AuthorizationPolicy", name, space(number), spec=spec)


def _service(number: int) -> Object:
    address = f"10.96.{number // 256}.{number % 256}"
    spec = {
        "type": "ClusterIP",
        "clusterIP": address,
        "clusterIPs": [address],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
        "selector": {"app": f"service-{number}"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
    }
    return _object("Service", f"service-{number}", space(number), spec=spec)


def _slice(number: int) -> Object:
    first = number * _PER_SERVICE
    pods = [pod(first + n, ready=True) for n in range(_PER_SERVICE)]
    found = _object(
        "EndpointSlice", f"service-{number}-x", space(number),
        metadata={"labels": {"kubernetes.io/service-name": f"service-{number}"}},
    )  # fmt: skip
    found["addressType"] = "IPv4"
    found["ports"] = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    found["endpoints"] = [
        {
            "addresses": [one["status"]["podIP"]],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": one["spec"]["nodeName"],
            "targetRef": {"kind": "Pod", "namespace": space(number), "name": one["metadata"]["name"]},
        }
        for one in pods
    ]
    return found


def _managed(who: str, fields: int) -> Object:
    names: Object = {f"f:field{n}": {".": {}, "f:name": {}, "f:value": {}} for n in range(fields)}
    return {"manager": who, "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:spec": names}}


def _object(kind: str, name: str, namespace: str, *, metadata: Object | None = None, **parts: Any) -> Object:
    about = {"name": name, "uid": f"{kind}-{namespace}-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    if namespace:
        about["namespace"] = namespace
    where = resources(kind)[0].group_version
    return {"apiVersion": where, "kind": kind, "metadata": {**about, "generation": 1, **(metadata or {})}, **parts}


class Feed:
    """The server. Of a kind that the cluster has none of it gives empty lists."""

    def __init__(self) -> None:
        self._kinds = {f"{resources(kind)[0].discovery}/{resources(kind)[0].plural}": kind for kind in KINDS}
        self._held: dict[str, dict[tuple[str, str], Object]] = {path: {} for path in self._kinds}
        self._paths = {kind: path for path, kind in self._kinds.items()}
        self._watches: dict[str, set[asyncio.Queue[bytes]]] = {path: set() for path in self._kinds}
        self._version = itertools.count(1000)
        self._now = 1000
        self._other: dict[str, Object] = {}
        for one in objects():
            self.put(one)

    def put(self, one: Object) -> None:
        """Somebody applied it."""
        path = self._paths[one["kind"]]
        metadata = one["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        known = self._held[path].get(key)
        if known is not None and "status" in known and "status" not in one:
            one["status"] = known["status"]
        self._now = next(self._version)
        metadata["resourceVersion"] = str(self._now)
        self._held[path][key] = one
        line = _line("MODIFIED" if known is not None else "ADDED", one)
        for queue in self._watches[path]:
            queue.put_nowait(line)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Every request there is."""
        if request.path.startswith("/bench/"):
            return await self._happen(request)
        parts = request.path.split("/")
        if "namespaces" in parts[:-2]:
            at = parts.index("namespaces")
            namespace, parts = parts[at + 1], parts[:at] + parts[at + 2 :]
        else:
            namespace = ""
        depth = 5 if parts[1] == "apis" else 4
        path, rest = "/".join(parts[:depth]), parts[depth:]
        if path in self._kinds and not rest:
            watching = request.query.get("watch") in ("1", "true")
            return await self._watch(request, path) if watching else self._list(path)
        if path in self._kinds and rest:
            return await self._one(request, path, namespace, rest)
        return await self._anything(request)

    def _list(self, path: str) -> web.Response:
        metadata = {"resourceVersion": str(self._now)}
        return _json({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": [*self._held[path].values()]})

    async def _watch(self, request: web.Request, path: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        if request.query.get("sendInitialEvents") == "true":
            held = [*self._held[path].values()]
            self._watches[path].add(queue)
            for start in range(0, len(held), 250):
                await response.write(b"".join(_line("ADDED", one) for one in held[start : start + 250]))
            metadata = {"resourceVersion": str(self._now), "annotations": {"k8s.io/initial-events-end": "true"}}
            kind = self._kinds[path]
            mark = {"kind": kind, "apiVersion": resources(kind)[0].group_version, "metadata": metadata}
            await response.write(_line("BOOKMARK", mark))
        else:
            self._watches[path].add(queue)
        try:
            while True:
                await response.write(await queue.get())
        except ConnectionError:
            return response
        finally:
            self._watches[path].discard(queue)

    async def _one(self, request: web.Request, path: str, namespace: str, rest: list[str]) -> web.Response:
        held = self._held[path].get((namespace, rest[0]))
        if held is None:
            return await self._anything(request)
        if request.method == "PATCH":
            body = await request.json()
            changed = {**held, "metadata": dict(held["metadata"])}
            changed["status"] = {**held.get("status", {}), **body.get("status", {})}
            changed["metadata"]["annotations"] = {
                **held["metadata"].get("annotations", {}),
                **(body.get("metadata", {}).get("annotations") or {}),
            }
            self.put(changed)
            held = changed
        return _json(held)

    async def _anything(self, request: web.Request) -> web.Response:
        """Leases and whatever else somebody wants to keep."""
        if request.method == "GET":
            held = self._other.get(request.path)
            return _json(held) if held is not None else _json({"kind": "Status", "code": 404}, 404)
        body = await request.json() if request.can_read_body else {}
        name = body.get("metadata", {}).get("name", "")
        path = f"{request.path}/{name}" if request.method == "POST" else request.path
        body.setdefault("metadata", {})["resourceVersion"] = str(next(self._version))
        self._other[path] = body
        return _json(body, 201 if request.method == "POST" else 200)

    async def _happen(self, request: web.Request) -> web.Response:
        """/bench/policy?number&port: change one. /bench/pods?rate&seconds: as many pods a second lose readiness or win
        it back. The answer: when each thing was put, by name of its resource."""
        query = request.query
        if request.path == "/bench/policy":
            number = int(query["number"])
            at = time.monotonic()
            self.put(policy(number, int(query["port"])))
            return _json({f"{space(number)}/service-{number}": at})
        rate, seconds = float(query["rate"]), float(query["seconds"])
        begun, stamps = time.monotonic(), {}
        for count in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begun + count / rate - time.monotonic()))
            one = pod(count % PODS, ready=count // PODS % 2 == 1)
            stamps[f"Kubernetes//Pod/{one['metadata']['namespace']}/{one['metadata']['name']}"] = time.monotonic()
            self.put(one)
        return _json(stamps)


def _line(kind: str, one: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": one}, separators=(",", ":")).encode() + b"\n"


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=json.dumps(value).encode(), content_type="application/json")


def main() -> None:
    """Serve on a port of loopback until the process is ended."""
    app = web.Application(client_max_size=8 << 20)
    app.router.add_route("*", "/{path:.*}", Feed().handle)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
