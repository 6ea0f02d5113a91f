"""What is measured: each case by name, run once in one arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from bench.arms import Arm
from bench.process import cpu_ns
from bench.world import BULK, HTTP, World


@dataclass(frozen=True, slots=True)
class Case:
    """`mode` and `connections` of the load generator; `server` "far" crosses nodes, "near" does not."""

    name: str
    mode: str
    connections: int
    server: str
    title: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: figures by name (see UNITS); `errors` of the load generator."""

    figures: Mapping[str, float]
    errors: int


UNITS: Final = MappingProxyType(
    {
        "rate": "/s",
        "p50": "us",
        "p99": "us",
        "gbit": "Gbit/s",
        "cpu": "us",
    }
)
"""rate: requests or connections; cpu: of all proxy processes, per request or connection (bulk: per MB)."""

LOWER_IS_BETTER: Final = frozenset({"p50", "p99", "cpu"})


def _both(name: str, mode: str, connections: int, title: str) -> list[Case]:
    return [
        Case(name, mode, connections, "far", f"{title}, cross-node"),
        Case(f"{name}-same", mode, connections, "near", f"{title}, same node"),
    ]


CASES: Final = tuple(
    [
        *_both("rr1", "rr", 1, "requests, 1 keep-alive connection"),
        *_both("rr64", "rr", 64, "requests, 64 keep-alive connections"),
        *_both("crr", "crr", 32, "new connections, 32 clients"),
        *_both("bulk1", "bulk", 1, "bulk, 1 stream"),
        *_both("bulk8", "bulk", 8, "bulk, 8 streams"),
    ]
)


def run_case(world: World, arm: Arm, case: Case, seconds: float) -> Sample:
    """Measure one case once in one arm."""
    pids = arm.pids()
    host, port = arm.reach(case.server, BULK if case.mode == "bulk" else HTTP)
    before = cpu_ns(pids)
    found = world.load(arm.client, case.mode, host, port, case.connections, seconds)
    spent = (cpu_ns(pids) - before) / 1000
    took = found["seconds"] or 1e9
    figures: dict[str, float] = {}
    if case.mode == "bulk":
        figures["gbit"] = found["bytes"] * 8 / took / 1e9
        figures["cpu"] = spent / max(1.0, found["all"] / 1e6)
    else:
        figures["rate"] = found["count"] / took
        figures["p50"], figures["p99"] = found["p50_us"], found["p99_us"]
        figures["cpu"] = spent / max(1.0, found["all"])
    return Sample(figures, int(found["errors"]))
