"""What is measured: each case by name, run once in one arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import sleep
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

_ALONE: Final[Mapping[str, Sequence[int]]] = MappingProxyType({})

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


def port_of(case: Case) -> int:
    """The port of the servers that the case talks to."""
    return BULK if case.mode == "bulk" else HTTP


def sample_of(case: Case, found: Mapping[str, float], spent_ns: Mapping[str, int]) -> Sample:
    """What the load generator printed, and the CPU time that was spent meanwhile, by the name of its figure."""
    took, figures, carried = found["seconds"] or 1e9, {}, found["all"]
    if case.mode == "bulk":
        figures["gbit"] = found["bytes"] * 8 / took / 1e9
        carried /= 1e6
    else:
        figures["rate"] = found["count"] / took
        figures["p50"], figures["p99"] = found["p50_us"], found["p99_us"]
    for name, spent in spent_ns.items():
        figures[name] = spent / 1000 / carried if carried else 0.0
    return Sample(figures, int(found["errors"]))


def run_case(
    world: World, arm: Arm, case: Case, seconds: float, parts: Mapping[str, Sequence[int]] = _ALONE, rest_s: float = 0.0
) -> Sample:
    """Measure one case once in one arm. `parts`: processes by name whose CPU is told by itself, as figure "cpu NAME".
    `rest_s`: how long after the last answer they may still have to do with it."""
    pids = {"cpu": arm.pids(), **{f"cpu {name}": part for name, part in parts.items()}}
    host, port = arm.reach(case.server, port_of(case))
    before = {name: cpu_ns(some) for name, some in pids.items()}
    found = world.load(arm.client, case.mode, host, port, case.connections, seconds)
    sleep(rest_s)
    return sample_of(case, found, {name: cpu_ns(some) - before[name] for name, some in pids.items()})
