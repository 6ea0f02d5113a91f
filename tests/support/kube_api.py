"""A Kubernetes API server on loopback that keeps objects in memory and does on demand what real ones do on bad days.

    async with FakeApi() as api:
        api.put(POD)                     # as if somebody had applied it
        client = ApiClient(api.access())
        api.say("/api/v1/pods", Answer(429, headers={"Retry-After": "1"}))    # the next request there

Watches, initial events, bookmarks, pages, optimistic locking, merge patches and the status subresource work as
documented (Kubernetes API Concepts); server-side apply merges without keeping field owners.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from ambient.kube.api.access import ApiAccess, FixedCredentials, Identity
from ambient.kube.objects import KINDS, resources
from tests.support.patches import json_patch, merge

Object = dict[str, Any]
PLURALS: Final = {
    **{kind: resources(kind)[0].plural for kind in KINDS},
    "Lease": "leases",
    "Event": "events",
    "ConfigMap": "configmaps",
    "Secret": "secrets",
    "DaemonSet": "daemonsets",
    "Deployment": "deployments",
    "ClusterRole": "clusterroles",
    "CertificateSigningRequest": "certificatesigningrequests",
    "ValidatingWebhookConfiguration": "validatingwebhookconfigurations",
}
GROUPS: Final = {
    "Lease": "coordination.k8s.io/v1",
    "Event": "events.k8s.io/v1",
    "ConfigMap": "v1",
    "Secret": "v1",
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "CertificateSigningRequest": "certificates.k8s.io/v1",
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
}
KIND_OF: Final = {plural: kind for kind, plural in PLURALS.items()}


@dataclass(slots=True)
class Answer:
    """What to answer instead of doing what was asked."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False


def status_body(code: int, reason: str, message: str) -> bytes:
    return json.dumps(
        {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}
    ).encode()


@dataclass(slots=True, eq=False)
class Watcher:
    """One open watch: what it will be sent. `None` ends it cleanly, an exception by breaking the connection."""

    collection: str
    query: Mapping[str, str]
    out: asyncio.Queue[bytes | Exception | None] = field(default_factory=asyncio.Queue)


class FakeApi:
    """`requests` is the log: (method, path, query). `streaming` False: a server that has no streaming lists."""

    def __init__(
        self,
        *,
        streaming: bool = True,
        page: int = 0,
        missing: tuple[str, ...] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._tls = tls
        self.streaming = streaming
        self.page = page
        self.missing = set(missing)
        self.tokens: set[str] = set()
        self.requests: list[tuple[str, str, Mapping[str, str]]] = []
        self.bodies: list[Any] = []
        self.seen_tokens: list[str] = []
        self.client_names: list[str] = []
        self.watchers: list[Watcher] = []
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._history: list[tuple[int, str, bytes, Object]] = []
        self._answers: dict[str, list[Answer]] = {}
        self._version = 100
        self._compacted = 0
        self._uids = itertools.count(1)
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, handle_signals=False, shutdown_timeout=0.1, access_log=None, handler_cancellation=True
        )
        await self._runner.setup()
        await self.listen()
        return self

    async def listen(self, port: int = 0) -> None:
        assert self._runner is not None
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=self._tls).start()
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        self.end_watches()
        await self._runner.cleanup()

    async def go_away(self) -> int:
        """Stop listening and break every connection; gives the port to `listen` on again."""
        assert self._runner is not None
        port = int(self.url.rpartition(":")[2])
        for site in list(self._runner.sites):
            await site.stop()
        self.break_watches()
        for connection in self._runner.server.connections if self._runner.server else ():
            connection.force_close()
            if connection.transport is not None:
                connection.transport.abort()
        return port

    def access(self) -> ApiAccess:
        return ApiAccess(self.url, FixedCredentials(Identity()), "ambient-system")

    # --- what somebody does in the cluster

    def put(self, content: Mapping[str, Any]) -> Object:
        """Create or change an object."""
        collection = self._collection_of(content)
        given: Object = json.loads(json.dumps(content))
        key = (given["metadata"].get("namespace", ""), given["metadata"]["name"])
        known = self._objects.setdefault(collection, {})
        before = known.get(key)
        self._version += 1
        metadata = given["metadata"]
        metadata.setdefault("uid", before["metadata"]["uid"] if before else f"uid-{next(self._uids)}")
        metadata["resourceVersion"] = str(self._version)
        known[key] = given
        self._happened(collection, "MODIFIED" if before else "ADDED", given)
        return given

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        collection = self.collection(kind)
        gone = json.loads(json.dumps(self._objects[collection].pop((namespace, name))))
        self._version += 1
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._happened(collection, "DELETED", gone)

    def stored(self, kind: str, name: str, namespace: str = "") -> Object | None:
        return self._objects.get(self.collection(kind), {}).get((namespace, name))

    def collection(self, kind: str) -> str:
        group_version = GROUPS.get(kind) or resources(kind)[0].group_version
        return f"{'/apis' if '/' in group_version else '/api'}/{group_version}/{PLURALS[kind]}"

    def _collection_of(self, content: Mapping[str, Any]) -> str:
        group_version = content["apiVersion"]
        return f"{'/apis' if '/' in group_version else '/api'}/{group_version}/{PLURALS[content['kind']]}"

    # --- what goes wrong

    def say(self, path: str, *answers: Answer) -> None:
        """Answer the next requests to this path (without its query) so."""
        self._answers.setdefault(path, []).extend(answers)

    def compact(self) -> None:
        """Forget what happened until now: a watch from before gets 410."""
        self._compacted = self._version
        self._history.clear()

    def end_watches(self) -> None:
        """As the server does at the end of timeoutSeconds."""
        for watcher in self.watchers:
            watcher.out.put_nowait(None)

    def break_watches(self) -> None:
        """As when the connection is lost in the middle of a line."""
        for watcher in self.watchers:
            watcher.out.put_nowait(ConnectionResetError())

    def send(self, data: bytes, kind: str = "Pod") -> None:
        """Put these octets into every open watch of this kind."""
        for watcher in self.watchers:
            if watcher.collection == self.collection(kind):
                watcher.out.put_nowait(data)

    def bookmark(self, kind: str = "Pod", version: int | None = None) -> None:
        self.send(_event("BOOKMARK", _marker(kind, version or self._version)), kind)

    def forget_silently(self, content: Mapping[str, Any]) -> None:
        """Remove an object as if its DELETED event was never sent."""
        collection = self._collection_of(content)
        metadata = content["metadata"]
        del self._objects[collection][(metadata.get("namespace", ""), metadata["name"])]

    def asked(self, method: str, path: str) -> list[Mapping[str, str]]:
        """The queries of all requests of this method to this path."""
        return [query for made, where, query in self.requests if (made, where) == (method, path)]

    # --- the server

    def _happened(self, collection: str, kind: str, content: Object) -> None:
        line = _event(kind, content)
        self._history.append((self._version, collection, line, content))
        for watcher in self.watchers:
            if watcher.collection == collection and _selected(content, watcher.query):
                watcher.out.put_nowait(line)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path, dict(request.query)))
        self.seen_tokens.append(request.headers.get("Authorization", ""))
        certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
        self.client_names.append(str(dict(x[0] for x in (certificate or {}).get("subject", ())).get("commonName", "")))
        data = await request.read()
        self.bodies.append(json.loads(data) if data else None)
        waiting = self._answers.get(request.path)
        if waiting:
            answer = waiting.pop(0)
            if answer.hang:
                await asyncio.Event().wait()
            return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))
        if self.tokens and self.seen_tokens[-1].removeprefix("Bearer ") not in self.tokens:
            return _failure(401, "Unauthorized", "Unauthorized")
        return await self._serve(request)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        prefix = 3 if parts[0] == "apis" else 2
        base, rest = "/" + "/".join(parts[:prefix]), parts[prefix:]
        if not rest:
            return self._discovery(base)
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        collection = f"{base}/{rest[0]}"
        if rest[0] not in KIND_OF or KIND_OF[rest[0]] in self.missing:
            return web.Response(status=404, text="404 page not found")
        name, part = (rest[1] if len(rest) > 1 else ""), (rest[2] if len(rest) > 2 else "")
        body = self.bodies[-1]
        if request.method == "GET" and not name:
            return await (self._watch if request.query.get("watch") else self._list)(request, collection, namespace)
        if request.method == "POST":
            return self._create(collection, namespace, body)
        return self._one(request, collection, namespace, name, part, body)

    def _discovery(self, base: str) -> web.Response:
        group_version = base.removeprefix("/apis/").removeprefix("/api/")
        kinds = [kind for kind in PLURALS if self.collection(kind) == f"{base}/{PLURALS[kind]}"]
        served = [{"name": PLURALS[kind], "kind": kind} for kind in kinds if kind not in self.missing]
        if not served:
            return web.Response(status=404, text="404 page not found")
        return _json({"kind": "APIResourceList", "groupVersion": group_version, "resources": served})

    def _matching(self, collection: str, namespace: str, query: Mapping[str, str]) -> list[Object]:
        known = sorted(self._objects.get(collection, {}).items())
        return [o for (where, _), o in known if namespace in ("", where) and _selected(o, query)]

    async def _list(self, request: web.Request, collection: str, namespace: str) -> web.StreamResponse:
        items = self._matching(collection, namespace, request.query)
        begin, limit = int(request.query.get("continue") or 0), int(request.query.get("limit") or 0)
        limit = min(limit or len(items) or 1, self.page or len(items) or 1)
        metadata = {"resourceVersion": str(self._version)}
        if begin + limit < len(items):
            metadata["continue"] = str(begin + limit)
        return _json({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items[begin : begin + limit]})

    async def _watch(self, request: web.Request, collection: str, namespace: str) -> web.StreamResponse:
        query = dict(request.query)
        initial = query.get("sendInitialEvents") == "true"
        if initial and not self.streaming:
            return _failure(422, "Invalid", "sendInitialEvents: Forbidden: not enabled")
        since = int(query.get("resourceVersion") or 0)
        if not initial and since < self._compacted:
            return _failure(410, "Expired", f"too old resource version: {since} ({self._compacted})")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        watcher = Watcher(collection, query)
        kind = KIND_OF[collection.rpartition("/")[2]]
        if initial:
            for content in self._matching(collection, namespace, query):
                watcher.out.put_nowait(_event("ADDED", content))
            done = _marker(kind, self._version)
            done["metadata"]["annotations"] = {"k8s.io/initial-events-end": "true"}
            watcher.out.put_nowait(_event("BOOKMARK", done))
        else:
            for version, where, line, content in self._history:
                if where == collection and version > since and _selected(content, query):
                    watcher.out.put_nowait(line)
        self.watchers.append(watcher)
        try:
            while (data := await watcher.out.get()) is not None:
                if isinstance(data, Exception):
                    if request.transport is not None:
                        request.transport.abort()
                    break
                await response.write(data)
        except ConnectionError:
            pass
        finally:
            self.watchers.remove(watcher)
        return response

    def _create(self, collection: str, namespace: str, body: Object) -> web.Response:
        body["metadata"].setdefault("namespace", namespace)
        if (namespace, body["metadata"].get("name")) in self._objects.get(collection, {}):
            return _failure(409, "AlreadyExists", f"{body['metadata']['name']} already exists")
        return _json(self.put(body), 201)

    def _one(
        self, request: web.Request, collection: str, namespace: str, name: str, part: str, body: Any
    ) -> web.Response:
        current = self._objects.get(collection, {}).get((namespace, name))
        applying = request.content_type == "application/apply-patch+yaml"
        if current is None and not (request.method == "PATCH" and applying and not part):
            return _failure(404, "NotFound", f"{name} not found")
        if request.method == "GET":
            return _json(current)
        if request.method == "DELETE":
            wanted = ((body or {}).get("preconditions") or {}).get("uid")
            if current is not None and wanted not in (None, current["metadata"]["uid"]):
                return _failure(409, "Conflict", "uid differs")
            self.delete(KIND_OF[collection.rpartition("/")[2]], name, namespace)
            return _json({"kind": "Status", "status": "Success"})
        if isinstance(body, list):
            try:
                body = json_patch(current or {}, body)
            except (KeyError, IndexError, ValueError) as error:
                return _failure(422, "Invalid", f"the server rejected our request: {error}")
        wanted = (body.get("metadata") or {}).get("resourceVersion")
        if current is not None and wanted not in (None, current["metadata"]["resourceVersion"]):
            return _failure(409, "Conflict", "the object has been modified")
        claimed = (body.get("metadata") or {}).get("uid")
        if current is not None and claimed not in (None, current["metadata"]["uid"]):
            return _failure(422, "Invalid", "metadata.uid: field is immutable")
        merged = body if request.method == "PUT" else merge(current or {}, body)
        if part == "status" and current is not None:
            merged = {**current, "status": merged.get("status")}
        elif current is not None and part == "" and "status" in current:
            merged = {**merged, "status": current["status"]}
        merged.setdefault("metadata", {}).setdefault("namespace", namespace)
        if applying:
            noted, by = merged["metadata"].get("managedFields") or [], request.query.get("fieldManager", "")
            if all(one.get("manager") != by for one in noted):
                merged["metadata"]["managedFields"] = [*noted, {"manager": by, "operation": "Apply"}]
        if merged == current:
            return _json(current)
        merged["metadata"]["uid"] = current["metadata"]["uid"] if current else f"uid-{next(self._uids)}"
        return _json(self.put(merged))


def _selected(content: Object, query: Mapping[str, str]) -> bool:
    labels = content["metadata"].get("labels") or {}
    label, chosen, values = query.get("labelSelector", "").replace("=", " in (").removesuffix(")").partition(" in (")
    if chosen and labels.get(label) not in values.split(","):
        return False
    wanted = query.get("fieldSelector", "")
    if wanted.startswith("metadata.name="):
        return bool(content["metadata"]["name"] == wanted.removeprefix("metadata.name="))
    return not wanted or content.get("spec", {}).get("nodeName") == wanted.removeprefix("spec.nodeName=")


def _marker(kind: str, version: int) -> Object:
    return {"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": str(version)}}


def _event(kind: str, content: Object) -> bytes:
    return json.dumps({"type": kind, "object": content}).encode() + b"\n"


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=json.dumps(value).encode(), content_type="application/json")


def _failure(code: int, reason: str, message: str) -> web.Response:
    return web.Response(status=code, body=status_body(code, reason, message), content_type="application/json")
