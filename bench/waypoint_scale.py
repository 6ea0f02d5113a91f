"""A waypoint with a large configuration: how long until a real Envoy has all of it, and what one endpoint costs.

What the control plane does between a snapshot and the bytes, and discovery over gRPC to an Envoy that acknowledges: the
same code as in the mesh, in this process, without a cluster beside it. Envoy is in a network namespace of its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc
import grpc.aio

from ambient.ca.csr import parse_csr
from ambient.ca.issue import issue
from ambient.ca.roots import load_authority, make_root
from ambient.ca.token import Caller
from ambient.control.derive import Derivation
from ambient.control.derive_world import DeriveSettings
from ambient.control.waypoints import Waypoints
from ambient.errors import Unavailable
from ambient.kube.objects import Record, Records, parse_object
from ambient.waypoint.agent.identity import OwnIdentity
from ambient.waypoint.agent.server import SECRETS_METHOD
from ambient.waypoint.bootstrap import Identification, bootstrap
from ambient.waypoint.typed import SECRET_TYPE
from ambient.xds.messages import METHOD, decode_request, encode_response
from ambient.xds.server import DeltaStream, Order

SERVICES: Final = 500
ENDPOINTS: Final = 5_000
ROUTES: Final = 2_000
CHANGES: Final = 21
PUSH_S: Final = 5.0
CHANGE_MS: Final = 100.0
CHANGE_OCTETS: Final = 10_240
_PER_SERVICE: Final = ENDPOINTS // SERVICES
_WHO: Final = Identification("shop", "waypoint", "waypoint-1", "10.1.1.1")
_PATIENCE_S: Final = 120.0
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WaypointScale:
    """`make_s`: from the snapshot to resources in bytes; `push_s`: from Envoy's request until it has taken them all.
    One endpoint's change: `change_ms` from the snapshot until Envoy has taken it, `change_octets` on the wire."""

    resources: int
    make_s: float
    push_s: float
    push_octets: int
    change_ms: tuple[float, ...]
    change_octets: tuple[int, ...]


def objects() -> Iterator[Object]:
    """Each service with its pods and four routes, that lead to it and to the next one."""
    labels = {"istio.io/dataplane-mode": "ambient", "istio.io/use-waypoint": "waypoint"}
    yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}
    listener = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
    address = {"type": "Hostname", "value": "waypoint.shop.svc.cluster.local"}
    gateway = {"gatewayClassName": "istio-waypoint", "listeners": [listener]}
    yield {**_object(_GATEWAY_API, "Gateway", "waypoint", gateway), "status": {"addresses": [address]}}
    yield _object("v1", "Service", "waypoint", {"clusterIP": "10.97.0.1", "ports": [{"name": "mesh", "port": 15008}]})
    for number in range(SERVICES):
        ports = [{"name": "http", "port": 80, "targetPort": 8080}]
        spec = {
            "clusterIP": f"10.96.{number // 256}.{number % 256}",
            "selector": {"app": _name(number)},
            "ports": ports,
        }
        yield _object("v1", "Service", _name(number), spec)
    for number in range(ENDPOINTS):
        yield pod(number, ready=True)
    for number in range(ROUTES):
        service = number % SERVICES
        backends = [{"name": _name(service), "port": 80, "weight": 90}]
        backends.append({"name": _name((service + 1) % SERVICES), "port": 80, "weight": 10})
        match = {"path": {"type": "PathPrefix", "value": f"/part-{number}"}}
        ref = {"group": "", "kind": "Service", "name": _name(service)}
        rules = [{"matches": [match], "backendRefs": backends}]
        yield _object(_GATEWAY_API, "HTTPRoute", f"route-{number}", {"parentRefs": [ref], "rules": rules})


def pod(number: int, *, ready: bool) -> Object:
    address = f"10.{64 + number // 65536}.{number // 256 % 256}.{number % 256}"
    spec = {"nodeName": "n1", "serviceAccountName": "web", "containers": [{"name": "c", "image": "x"}]}
    made = _object("v1", "Pod", f"pod-{number}", spec)
    made["metadata"]["labels"] = {"app": _name(number // _PER_SERVICE)}
    made["metadata"]["annotations"] = {"ambient.istio.io/redirection": "enabled"}
    condition = {"type": "Ready", "status": str(ready)}
    made["status"] = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [condition]}
    return made


_GATEWAY_API: Final = "gateway.networking.k8s.io/v1"


def _name(service: int) -> str:
    return f"service-{service}"


def _object(version: str, kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


class Plane:
    """The part of the control plane that waypoints are told by. `octets`: sent so far."""

    def __init__(self) -> None:
        self._derivation = Derivation(DeriveSettings())
        self._waypoints = Waypoints(("cluster.local",), "istio-system", "cluster.local")
        self._by_key: dict[str, Record] = {}
        self._wake = asyncio.Event()
        self.revision = 0
        self.octets = 0
        self.stream: DeltaStream | None = None

    @property
    def summary(self) -> Mapping[str, object]:
        return self._waypoints.summary["shop/waypoint"]

    def take(self, records: Mapping[str, Record], *, everything: bool = False) -> None:
        self._by_key = {**self._by_key, **records}
        self.revision += 1
        snapshot = Records(self.revision, self._by_key, changed=None if everything else frozenset(records))
        self._waypoints.update(snapshot, self._derivation.update(snapshot))
        self._wake.set()

    @property
    def taken(self) -> bool:
        """Envoy has acknowledged all there is."""
        return self.stream is not None and self.stream.complete and self.stream.acked >= self.revision

    async def serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        stream = self._waypoints.open(Caller("waypoint-1", "shop", "waypoint", "uid"), "waypoint")
        self.stream = stream

        async def read() -> None:
            async for data in requests:
                stream.receive(decode_request(data))
                self._waypoints.heard(stream)
                self._wake.set()

        reader = asyncio.create_task(read())
        try:
            while not reader.done():
                await self._wake.wait()
                self._wake.clear()
                while (response := stream.pull()) is not None:
                    data = encode_response(response)
                    self.octets += len(data)
                    await context.write(data)
        finally:
            reader.cancel()
            self._waypoints.close(stream)


def waypoint_scale(folder: Path) -> WaypointScale:
    """Measure. Raises Unavailable when Envoy does not take what it is told."""
    return asyncio.run(_measure(folder))


async def _measure(folder: Path) -> WaypointScale:
    read = {record.key: record for record in map(_read, objects())}
    plane = Plane()
    begun = time.monotonic()
    plane.take(read, everything=True)
    make_s = time.monotonic() - begun
    async with _envoy(plane, folder):
        await _until(lambda: plane.stream is not None, "Envoy asks")
        begun = time.monotonic()
        await _until(lambda: plane.taken, "Envoy has taken everything")
        push_s, push_octets = time.monotonic() - begun, plane.octets
        spent: list[float] = []
        sizes: list[int] = []
        for number in range(CHANGES):
            record = _read(pod(number * 7, ready=False))
            before, begun = plane.octets, time.monotonic()
            plane.take({record.key: record})
            await _until(lambda: plane.taken, "Envoy has taken the change")
            spent.append((time.monotonic() - begun) * 1000)
            sizes.append(plane.octets - before)
        refused = plane.summary["refused"]
        if refused:
            raise Unavailable("Envoy refuses", str(refused)[:200])
        found = plane.summary["resources"]
        assert isinstance(found, int)
        return WaypointScale(found, make_s, push_s, push_octets, tuple(spent), tuple(sizes))


def _read(content: Object) -> Record:
    return parse_object(content, "bench", observed=True)


async def _until(probe: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not probe():
        if time.monotonic() > end:
            raise Unavailable("waited in vain until", what)
        await asyncio.sleep(0.001)


@asynccontextmanager
async def _envoy(plane: Plane, folder: Path) -> AsyncIterator[None]:
    identity = OwnIdentity("spiffe://cluster.local/ns/shop/sa/waypoint", _signer())
    issued = asyncio.create_task(identity.run())
    await _until(lambda: identity.secrets.filled, "a certificate is issued")

    async def secrets(requests: AsyncIterator[bytes], context: Any) -> None:
        stream = DeltaStream(identity.secrets, order=Order((SECRET_TYPE,)))
        async for data in requests:
            stream.receive(decode_request(data))
            while (response := stream.pull()) is not None:
                await context.write(encode_response(response))

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_handler(METHOD, plane.serve), _handler(SECRETS_METHOD, secrets)))
    server.add_insecure_port(f"unix:{folder / 'agent'}")
    await server.start()
    file = folder / "envoy.json"
    made = bootstrap(_WHO, agent_socket=str(folder / "agent"), admin_socket=str(folder / "admin"))
    file.write_text(json.dumps(made))
    binary = str(Path(sys.executable).with_name("envoy"))
    argv = ["-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    process = await asyncio.create_subprocess_exec(
        "unshare", "-n", "--", "setpriv", "--pdeathsig", "KILL", binary, *argv
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()
        await server.stop(None)
        issued.cancel()
        await asyncio.gather(issued, return_exceptions=True)


def _signer() -> Callable[[str, str], Awaitable[list[str]]]:
    now = datetime.now(UTC)
    certificate, key = make_root(now)
    authority = load_authority({"root-cert.pem": certificate.encode(), "root-key.pem": key.encode()}, now)

    async def sign(identity: str, csr_pem: str) -> list[str]:
        return [*issue(authority, parse_csr(csr_pem), datetime.now(UTC), timedelta(hours=1)).chain, certificate]

    return sign


def _handler(method: str, serve: Any) -> grpc.GenericRpcHandler[bytes, bytes]:
    service, _, name = method.removeprefix("/").partition("/")
    made = grpc.stream_stream_rpc_method_handler(serve, request_deserializer=None, response_serializer=None)
    return grpc.method_handlers_generic_handler(service, {name: made})


def lines(one: WaypointScale) -> list[str]:
    """A table of Markdown."""
    whole, change, octets = one.make_s + one.push_s, median(one.change_ms), max(one.change_octets)
    rows = (
        ("everything, made and taken by Envoy", f"{one.make_s:.1f} + {one.push_s:.1f} s", "< 5 s", whole < PUSH_S),
        ("one endpoint, until Envoy has it, p50", f"{change:.0f} ms", "< 100 ms", change < CHANGE_MS),
        ("one endpoint on the wire, most", f"{octets:,} octets", "< 10 KB", octets < CHANGE_OCTETS),
    )
    return [
        "",
        f"| waypoint: {ROUTES:,} routes, {ENDPOINTS:,} endpoints, {one.resources:,} resources | found | budget | |",
        "|---" * 4 + "|",
        *(f"| {what} | {found} | {budget} | {_said(held)} |" for what, found, budget, held in rows),
    ]


def _said(held: bool) -> str:
    return "held" if held else "**missed**"
