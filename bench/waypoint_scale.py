"""A waypoint with a large configuration: how long until a real Envoy has all of it, and what one endpoint costs.

What the control plane does between a snapshot and the bytes, and discovery over gRPC to an Envoy that acknowledges: the
same code as in the mesh, in this process, without a cluster beside it. Envoy is in a network namespace of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

from ambient.ca.csr import parse_csr
from ambient.ca.issue import issue
from ambient.ca.roots import load_authority, make_root
from ambient.ca.token import Caller
from ambient.control.derive import Derivation
from ambient.control.derive_world import DeriveSettings
from ambient.control.waypoints import Waypoints
from ambient.errors import Unavailable
from ambient.kube.objects import Record, Records, parse_object
from ambient.xds.pace import WithoutCollection, between_others
from ambient.xds.server import DeltaStream
from bench.fed_envoy import fed_envoy

SERVICES: Final = 500
ENDPOINTS: Final = 5_000
ROUTES: Final = 2_000
CHANGES: Final = 21
PUSH_S: Final = 5.0
CHANGE_MS: Final = 100.0
CHANGE_OCTETS: Final = 10_240
LATE_MS: Final = 100.0
_PER_SERVICE: Final = ENDPOINTS // SERVICES
_ASKING_S: Final = 0.005
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WaypointScale:
    """`make_s`: from the snapshot to resources in bytes; `push_s`: from Envoy's request until it has taken them all.
    One endpoint's change: `change_ms` from the snapshot until Envoy has taken it, `change_octets` on the wire.
    `late_ms`: how late anybody else was answered, of a probe every 5 ms from the first snapshot on until Envoy had
    everything."""

    resources: int
    make_s: float
    push_s: float
    push_octets: int
    change_ms: tuple[float, ...]
    change_octets: tuple[int, ...]
    late_ms: tuple[float, ...]


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
    """The part of the control plane that waypoints are told by."""

    def __init__(self) -> None:
        self._derivation = Derivation(DeriveSettings())
        self._waypoints = Waypoints(("cluster.local",), "istio-system", "cluster.local")
        self._by_key: dict[str, Record] = {}
        self.revision = 0

    @property
    def summary(self) -> Mapping[str, object]:
        return self._waypoints.summary["shop/waypoint"]

    async def take(self, records: Mapping[str, Record], *, everything: bool = False) -> None:
        """What the control plane does with a snapshot, between what else its event loop has to do."""
        self._by_key = {**self._by_key, **records}
        self.revision += 1
        snapshot = Records(self.revision, self._by_key, changed=None if everything else frozenset(records))
        with WithoutCollection() if everything else nullcontext():
            derived = await asyncio.to_thread(self._derivation.update, snapshot)
            await between_others(self._waypoints.updating(snapshot, derived))

    def open_stream(self) -> DeltaStream:
        return self._waypoints.open(Caller("waypoint-1", "shop", "waypoint", "uid"), "waypoint")

    def heard(self, stream: DeltaStream) -> bool:
        return self._waypoints.heard(stream)

    def close(self, stream: DeltaStream) -> bool:
        return self._waypoints.close(stream)


class Others:
    """Everybody else whom the control plane serves: asks every few milliseconds, and notes how late the answer is."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            begun = time.monotonic()
            await asyncio.sleep(_ASKING_S)
            self.late_ms.append((time.monotonic() - begun - _ASKING_S) * 1000)


def waypoint_scale(folder: Path) -> WaypointScale:
    """Measure. Raises Unavailable when Envoy does not take what it is told."""
    return asyncio.run(_measure(folder))


async def _measure(folder: Path) -> WaypointScale:
    read = {record.key: record for record in map(_read, objects())}
    plane, others = Plane(), Others()
    asking = asyncio.create_task(others.run())
    begun = time.monotonic()
    await plane.take(read, everything=True)
    make_s = time.monotonic() - begun
    async with fed_envoy(plane, folder, _signer()) as envoy:
        begun = time.monotonic()
        await envoy.settled()
        push_s, push_octets = time.monotonic() - begun, envoy.octets
        late_ms = tuple(others.late_ms)
        asking.cancel()
        spent: list[float] = []
        sizes: list[int] = []
        for number in range(CHANGES):
            record = _read(pod(number * 7, ready=False))
            before, begun = envoy.octets, time.monotonic()
            await plane.take({record.key: record})
            await envoy.settled()
            spent.append((time.monotonic() - begun) * 1000)
            sizes.append(envoy.octets - before)
        refused = plane.summary["refused"]
        if refused:
            raise Unavailable("Envoy refuses", str(refused)[:200])
        found = plane.summary["resources"]
        assert isinstance(found, int)
        return WaypointScale(found, make_s, push_s, push_octets, tuple(spent), tuple(sizes), late_ms)


def _read(content: Object) -> Record:
    return parse_object(content, "bench", observed=True)


def _signer() -> Callable[[str, str], Awaitable[list[str]]]:
    now = datetime.now(UTC)
    certificate, key = make_root(now)
    authority = load_authority({"root-cert.pem": certificate.encode(), "root-key.pem": key.encode()}, now)

    async def sign(identity: str, csr_pem: str) -> list[str]:
        return [*issue(authority, parse_csr(csr_pem), datetime.now(UTC), timedelta(hours=1)).chain, certificate]

    return sign


def lines(one: WaypointScale) -> list[str]:
    """A table of Markdown."""
    whole, change, octets = one.make_s + one.push_s, median(one.change_ms), max(one.change_octets)
    late = max(one.late_ms, default=0.0)
    rows = (
        ("everything, made and taken by Envoy", f"{one.make_s:.1f} + {one.push_s:.1f} s", "< 5 s", whole < PUSH_S),
        ("one endpoint, until Envoy has it, p50", f"{change:.0f} ms", "< 100 ms", change < CHANGE_MS),
        ("one endpoint on the wire, most", f"{octets:,} octets", "< 10 KB", octets < CHANGE_OCTETS),
        ("anybody else meanwhile, late at most", f"{late:.0f} ms", "< 100 ms", late < LATE_MS),
    )
    return [
        "",
        f"| waypoint: {ROUTES:,} routes, {ENDPOINTS:,} endpoints, {one.resources:,} resources | found | budget | |",
        "|---" * 4 + "|",
        *(f"| {what} | {found} | {budget} | {_said(held)} |" for what, found, budget, held in rows),
    ]


def _said(held: bool) -> str:
    return "held" if held else "**missed**"
