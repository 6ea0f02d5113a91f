"""What a waypoint costs: requests through it beside requests between the same nodes without it, in turn, in one lab.

direct      mesh/client to the service `direct`, whose pod is on the other node: from ztunnel to ztunnel
waypoint    mesh/client to the service `behind`, alike, but for the waypoint before it
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Final

from ambient.errors import MeshError
from ambient.kube.objects import Service
from ambient.lab import cgroup
from bench.arms import Arm
from bench.cases import CASES, LOWER_IS_BETTER, Sample, run_case
from bench.process import role
from bench.stats import Ratio, middle_of, paired_ratio
from bench.world import HTTP, MESH, NODES, World

MEASURED: Final = (
    *(("rr1", figure) for figure in ("p50", "p99", "rate")),
    *(("rr64", figure) for figure in ("p50", "p99", "rate")),
    *(("crr", figure) for figure in ("p50", "rate")),
)
"""One connection, 64 of them, and a new one for each request of 32 clients; figures as in `bench.cases`."""
PARTS: Final = ("ztunnel", "envoy", "agent")
"""Whose CPU per request is told, too: of both nodes' ztunnels, and of the waypoint's two processes."""
_LINES_S: Final = 0.6
"""Until Envoy has handed over the last lines of its access log, and the agent has counted them."""
_PORT: Final = 80
_PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Hop:
    """One figure of one case, medians; `times`: what it is with the waypoint over what it is without."""

    case: str
    figure: str
    direct: float
    waypoint: float
    times: Ratio


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU of one of PARTS for a request (or new connection) of a case, medians in us."""

    case: str
    part: str
    direct: float
    waypoint: float


def waypoint(world: World, rounds: int, seconds: float) -> tuple[list[Hop], list[Cost]]:
    """Measure in turn; which comes first changes from round to round. Raises MeshError when a request fails."""
    world.stage.apply("\n---\n".join(map(json.dumps, _objects(str(world.binary)))))
    arms = (_arm(world, "direct"), _arm(world, "behind"))
    for arm in arms:
        _ready(world, arm)
    found: list[Hop] = []
    costs: list[Cost] = []
    for case in (case for case in CASES if case.name in {name for name, _ in MEASURED}):
        taken: dict[str, list[Sample]] = {arm.title: [] for arm in arms}
        for number in range(rounds):
            for arm in arms if number % 2 else arms[::-1]:
                sample = run_case(world, arm, case, seconds, _processes(world), _LINES_S)
                if sample.errors:
                    raise MeshError("requests failed", arm.title, f"{sample.errors} of {case.name}")
                taken[arm.title].append(sample)
        found += [_hop(case.name, figure, taken, arms) for name, figure in MEASURED if name == case.name]
        costs += [_cost(case.name, part, taken, arms) for part in PARTS]
    return found, costs


def _processes(world: World) -> dict[str, list[int]]:
    """Those of PARTS."""
    pod = world.lab.pod(f"{MESH}/waypoint")
    own = cgroup.pids(cgroup.place(world.names.pod_cgroup(pod.node_name, pod.uid)))
    envoy = [pid for pid in own if role(pid) == "envoy"]
    return dict(zip(PARTS, (world.ztunnel_pids(), envoy, [pid for pid in own if pid not in envoy]), strict=True))


def _arm(world: World, service: str) -> Arm:
    record = world.lab.records().find(Service, MESH, service)
    assert record is not None
    address = str(record.cluster_ips[0])
    return Arm(service, f"{MESH}/client", lambda server, port: (address, _PORT), world.ztunnel_pids)


def _ready(world: World, arm: Arm) -> None:
    """Dial until every request is answered."""
    end = monotonic() + _PATIENCE_S
    while True:
        host, port = arm.reach("far", HTTP)
        done = world.load(arm.client, "rr", host, port, 1, 0.2)
        if done["count"] and not done["errors"]:
            return
        if monotonic() > end:
            raise MeshError("no answer", arm.title, f"through {host}:{port}")
        sleep(0.3)


def _hop(case: str, figure: str, taken: dict[str, list[Sample]], arms: tuple[Arm, Arm]) -> Hop:
    direct, through = ([sample.figures[figure] for sample in taken[arm.title]] for arm in arms)
    return Hop(case, figure, middle_of(direct), middle_of(through), paired_ratio(through, direct))


def _cost(case: str, part: str, taken: dict[str, list[Sample]], arms: tuple[Arm, Arm]) -> Cost:
    direct, through = (middle_of([sample.figures[f"cpu {part}"] for sample in taken[arm.title]]) for arm in arms)
    return Cost(case, part, direct, through)


def _objects(binary: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in ("direct", "behind"):
        labels = {"istio.io/use-waypoint": "waypoint"} if name == "behind" else {}
        port = {"name": "http", "port": _PORT, "targetPort": HTTP}
        found.append(_object("v1", "Service", name, {"selector": {"app": name}, "ports": [port]}, labels))
        command = [binary, "serve", str(HTTP), str(HTTP + 1)]
        spec = {"nodeName": NODES[1], "containers": [{"name": "main", "command": command}]}
        found.append(_object("v1", "Pod", name, spec, {"app": name}))
    listener = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
    spec = {"gatewayClassName": "istio-waypoint", "listeners": [listener]}
    made = _object("gateway.networking.k8s.io/v1", "Gateway", "waypoint", spec, {})
    made["metadata"]["annotations"] = {"ambient.mesh/node": NODES[1]}
    return [*found, made]


def _object(version: str, kind: str, name: str, spec: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": MESH, "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def lines(found: list[Hop], costs: list[Cost]) -> list[str]:
    """Two tables of Markdown."""
    table = ["", "| waypoint | without | with | added | times (95 %) |", "|---" * 5 + "|"]
    for one in found:
        added = f"{one.waypoint - one.direct:+.0f} us" if one.figure in LOWER_IS_BETTER else ""
        table.append(f"| {one.case}, {one.figure} | {one.direct:.0f} | {one.waypoint:.0f} | {added} | {one.times} |")
    table += ["", "| CPU of each, us | process | without | with |", "|---" * 4 + "|"]
    table += [f"| {one.case} | {one.part} | {one.direct:.1f} | {one.waypoint:.1f} |" for one in costs]
    return table
