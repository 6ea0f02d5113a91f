"""What it costs that the kernel tells of flows: requests and new connections with the node's program attached and
without, and the agent's CPU under new connections.

    hooks   mesh/client to mesh/far, 64 keep-alive connections and 32 clients that connect anew, in slices with the
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
from bench.arms import Arm, ours
from bench.cases import CASES, Case, Sample, run_case
from bench.process import cpu_ns
from bench.slices import in_turn, opened
from bench.stats import Ratio, middle_of, paired_ratio
from bench.world import NODES, World

LEAST: Final = 0.97
"""The budget: requests/s with the program, over those without."""
MOST_AGENT: Final = 0.03
"""The budget of the agent's CPU, share of a core, at:"""
CONNECTIONS: Final = 5_000
_TITLES: Final = {True: "attached", False: "detached"}
_WARM_S: Final = 1.0
_AGENT_S: Final = 12.0
"""Two times that the agent takes a sheet, at least."""


@dataclass(frozen=True, slots=True)
class Flows:
    """Medians of rates with and without the program, and the paired ratios; `cpu_ratio`, `connections_cpu_ratio`: of
    the proxies' CPU time per request and connection, for machines that are busy with other things. The agent's share of
    a core (the larger of both nodes') at how many connections a second, and at rest."""

    requests: float
    requests_without: float
    requests_ratio: Ratio
    cpu_ratio: Ratio
    connections: float
    connections_without: float
    connections_ratio: Ratio
    connections_cpu_ratio: Ratio
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
    """Measure in turn, `rounds` slices of `seconds` with the program and as many without, by the same connections.
    They were opened with the program attached, or it would never be asked about them again."""
    cases = {case.name: case for case in CASES}
    requests, connects = cases["rr64"], cases["crr"]
    arm = ours(world)
    run_case(world, arm, connects, _WARM_S)
    with _still(world):
        switch = _Switch(world)
        taken = {
            case.name: _with_and_without(world, arm, case, switch, rounds, seconds) for case in (requests, connects)
        }
        switch.turn(on=True)

    def of(name: str, figure: str, *, on: bool) -> list[float]:
        return [one.figures[figure] for one in taken[name][_TITLES[on]]]

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
        connections_cpu_ratio=ratio("crr", "cpu"),
        agent=share,
        agent_rate=rate,
        agent_idle=idle,
    )


def _with_and_without(
    world: World, arm: Arm, case: Case, switch: _Switch, rounds: int, seconds: float
) -> dict[str, list[Sample]]:
    switch.turn(on=True)
    with opened(world, arm, case) as take:

        def of(*, on: bool) -> Callable[[], Sample]:
            def one() -> Sample:
                switch.turn(on=on)
                return take(seconds)

            return one

        return in_turn({_TITLES[on]: of(on=on) for on in (True, False)}, rounds)


class _Switch:
    """Whether the program is attached on both nodes; it is at first."""

    def __init__(self, world: World) -> None:
        self._places = [(BPFFS / world.names.lab / node, cgroup.place(world.names.node_cgroup(node))) for node in NODES]
        self._on = True

    def turn(self, *, on: bool) -> None:
        if on == self._on:
            return
        for bpffs, group in self._places:
            if on:
                programs.attach_node(bpffs, group)
            else:
                programs.detach_node(bpffs)
        self._on = on


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
        f"| CPU of the proxies per connection, attached over detached | | | {found.connections_cpu_ratio} | |",
        "",
        f"| agent, share of a core | under connections | at rest | they add, at {CONNECTIONS}/s | budget |",
        "|---" * 5 + "|",
        f"| the busier of both nodes | {share} | {_said(found.quiet)} |",
    ]


def _said(held: bool) -> str:
    return "held" if held else "**missed**"
