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
from bench.arms import Arm
from bench.cases import CASES, LOWER_IS_BETTER, Sample, run_case
from bench.stats import Ratio, middle_of, paired_ratio
from bench.world import HTTP, MESH, NODES, World

MEASURED: Final = (("rr1", "p50"), ("rr1", "p99"), ("rr64", "rate"))
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


def waypoint(world: World, rounds: int, seconds: float) -> list[Hop]:
    """Measure in turn; which comes first changes from round to round. Raises MeshError when a request fails."""
    world.stage.apply("\n---\n".join(map(json.dumps, _objects(str(world.binary)))))
    arms = (_arm(world, "direct"), _arm(world, "behind"))
    for arm in arms:
        _ready(world, arm)
    found = []
    for case in (case for case in CASES if case.name in {name for name, _ in MEASURED}):
        taken: dict[str, list[Sample]] = {arm.title: [] for arm in arms}
        for number in range(rounds):
            for arm in arms if number % 2 else arms[::-1]:
                sample = run_case(world, arm, case, seconds)
                if sample.errors:
                    raise MeshError("requests failed", arm.title, f"{sample.errors} of {case.name}")
                taken[arm.title].append(sample)
        found += [_hop(case.name, figure, taken, arms) for name, figure in MEASURED if name == case.name]
    return found


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


def lines(found: list[Hop]) -> list[str]:
    """A table of Markdown."""
    table = ["", "| waypoint | without | with | added | times (95 %) |", "|---" * 5 + "|"]
    for one in found:
        added = f"{one.waypoint - one.direct:+.0f} us" if one.figure in LOWER_IS_BETTER else ""
        table.append(f"| {one.case}, {one.figure} | {one.direct:.0f} | {one.waypoint:.0f} | {added} | {one.times} |")
    return table
