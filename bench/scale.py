"""Scale: the memory of a node that knows many workloads."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any, Final

from ambient.kube.objects import Record, parse_object
from ambient.lab.sync import wait_acknowledged
from bench.process import memory, role
from bench.world import World

WORKLOADS: Final = 10_000
_PER_NODE: Final = 100


def pods(count: int) -> list[Record]:
    """Running, enrolled pods on nodes that exist on paper only."""
    found = []
    for number in range(count):
        ip = f"100.{64 + number // 65536}.{number // 256 % 256}.{number % 256}"
        raw: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"app-{number}",
                "namespace": "paper",
                "uid": f"paper-{number}",
                "labels": {"app": f"app-{number % 1000}", "version": "v1"},
                "annotations": {"ambient.istio.io/redirection": "enabled"},
            },
            "spec": {
                "nodeName": f"paper-{number // _PER_NODE}",
                "serviceAccountName": "default",
                "containers": [{"name": "main", "command": ["true"]}],
            },
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "100.127.0.1"},
        }
        found.append(parse_object(raw, "bench"))
    return found


def knowing(world: World, count: int = WORKLOADS) -> dict[str, Any]:
    """PSS of every process of the mesh before and after `count` workloads became known to it, in KiB, by role."""
    before = _sizes(world)
    raw = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "paper", "labels": {"istio.io/dataplane-mode": "ambient"}},
    }
    begun = perf_counter_ns()
    with world.lab.locked():
        world.lab.folder.put([parse_object(raw, "bench"), *pods(count)])
    wait_acknowledged(world.lab, 120.0)
    seconds = (perf_counter_ns() - begun) / 1e9
    return {"workloads": count, "seconds": round(seconds, 1), "before": before, "after": _sizes(world)}


def _sizes(world: World) -> dict[str, int]:
    found: dict[str, int] = {}
    for pid in [*world.ztunnel_pids(), *world.agent_pids()]:
        size = memory(pid)
        if size is not None:
            found[role(pid)] = max(found.get(role(pid), 0), size.pss)
    return found
