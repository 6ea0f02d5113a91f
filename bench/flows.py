"""What it costs that the kernel tells of flows: requests and new connections with the node's program attached and
without, and the agent's CPU under new connections.

    hooks   mesh/client to mesh/far, 64 keep-alive connections and 32 clients that connect anew, in turn with the
            program attached and detached; the agents stand still meanwhile, so that nobody attaches it again
    agent   the same new connections with everything running: the share of a core of the agent that sees most of them,
            beside what the same agent takes when nothing happens

The connections that ztunnels keep between the nodes are made before, with the program attached.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Final

from ambient.datapath import programs
from ambient.lab import cgroup
from ambient.lab.names import BPFFS
from bench.arms import ours
from bench.cases import CASES, Case, Sample, run_case
from bench.process import cpu_ns
from bench.stats import Ratio, middle_of, paired_ratio
from bench.world import NODES, World

LEAST: Final = 0.97
"""The budget: requests/s with the program, over those without."""
MOST_AGENT: Final = 0.03
"""The budget of the agent's CPU, share of a core, at:"""
CONNECTIONS: Final = 5_000
_WARM_S: Final = 1.0
_AGENT_S: Final = 12.0
"""Two times that the agent takes a sheet, at least."""


@dataclass(frozen=True, slots=True)
class Flows:
    """Medians of rates with and without the program, and the paired ratios; `cpu_ratio`: of the proxies' CPU time per
    request, for machines that are busy with other things. The agent's share of a core (the larger of both nodes') at
    how many connections a second, and at rest."""

    requests: float
    requests_without: float
    requests_ratio: Ratio
    cpu_ratio: Ratio
    connections: float
    connections_without: float
    connections_ratio: Ratio
    agent: float
    agent_rate: float
    agent_idle: float

    @property
    def light(self) -> bool:
        """By the worse end of the interval."""
        return self.requests_ratio.low >= LEAST

    @property
    def agent_at_budget(self) -> float:
        """What connections add at the rate of the budget, if it grows with the rate; no less than what was measured."""
        return max(0.0, self.agent - self.agent_idle) * max(1.0, CONNECTIONS / max(1.0, self.agent_rate))

    @property
    def quiet(self) -> bool:
        return self.agent_at_budget < MOST_AGENT


def flows(world: World, rounds: int, seconds: float) -> Flows:
    """Measure in turn; which comes first changes from round to round."""
    cases = {case.name: case for case in CASES}
    requests, connects = cases["rr64"], cases["crr"]
    taken: dict[tuple[str, bool], list[Sample]] = {(name, on): [] for name in ("rr64", "crr") for on in (True, False)}
    for case in (requests, connects):
        run_case(world, ours(world), case, _WARM_S)
    with _still(world):
        for number in range(rounds):
            for on in (True, False) if number % 2 else (False, True):
                _switch(world, on=on)
                for case in (requests, connects):
                    taken[case.name, on].append(run_case(world, ours(world), case, seconds))
        _switch(world, on=True)

    def of(name: str, figure: str, *, on: bool) -> list[float]:
        return [one.figures[figure] for one in taken[name, on]]

    def ratio(name: str, figure: str) -> Ratio:
        return paired_ratio(of(name, figure, on=True), of(name, figure, on=False))

    share, idle, rate = _agent(world, connects)
    return Flows(
        requests=middle_of(of("rr64", "rate", on=True)),
        requests_without=middle_of(of("rr64", "rate", on=False)),
        requests_ratio=ratio("rr64", "rate"),
        cpu_ratio=ratio("rr64", "cpu"),
        connections=middle_of(of("crr", "rate", on=True)),
        connections_without=middle_of(of("crr", "rate", on=False)),
        connections_ratio=ratio("crr", "rate"),
        agent=share,
        agent_rate=rate,
        agent_idle=idle,
    )


def _switch(world: World, *, on: bool) -> None:
    for node in NODES:
        bpffs = BPFFS / world.names.lab / node
        if on:
            programs.attach_node(bpffs, cgroup.place(world.names.node_cgroup(node)))
        else:
            programs.detach_node(bpffs)


@contextmanager
def _still(world: World) -> Iterator[None]:
    """The agents stand still."""
    pids = world.agent_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _agent(world: World, case: Case) -> tuple[float, float, float]:
    """The busier agent's share under load, its share at rest, and the rate."""
    rates = []
    loaded = _shares(world, lambda: rates.append(run_case(world, ours(world), case, _AGENT_S).figures["rate"]))
    idle = _shares(world, lambda: sleep(_AGENT_S))
    which = max(range(len(NODES)), key=loaded.__getitem__)
    return loaded[which], idle[which], rates[0]


def _shares(world: World, meanwhile: Callable[[], object]) -> list[float]:
    groups = [cgroup.pids(cgroup.place(world.names.component_cgroup(node, "agent"))) for node in NODES]
    before, begun = [cpu_ns(pids) for pids in groups], monotonic()
    meanwhile()
    lasted = monotonic() - begun
    return [(cpu_ns(pids) - was) / 1e9 / lasted for pids, was in zip(groups, before, strict=True)]


def lines(found: Flows) -> list[str]:
    """Tables of Markdown."""
    requests = f"{found.requests:.0f} | {found.requests_without:.0f} | {found.requests_ratio}"
    connections = f"{found.connections:.0f} | {found.connections_without:.0f} | {found.connections_ratio}"
    share = f"{found.agent:.4f} at {found.agent_rate:.0f}/s | {found.agent_idle:.4f} | {found.agent_at_budget:.4f}"
    return [
        "",
        "| telemetry of flows, cross-node | attached | detached | ratio (95 %) | budget |",
        "|---" * 5 + "|",
        f"| requests/s, 64 connections | {requests} | {_said(found.light)} |",
        f"| CPU of the proxies per request, attached over detached | | | {found.cpu_ratio} | |",
        f"| new connections/s, 32 clients | {connections} | |",
        "",
        f"| agent, share of a core | under connections | at rest | they add, at {CONNECTIONS}/s | budget |",
        "|---" * 5 + "|",
        f"| the busier of both nodes | {share} | {_said(found.quiet)} |",
    ]


def _said(held: bool) -> str:
    return "held" if held else "**missed**"
