"""The verdicts of the telemetry's benchmark: by the worse end of the interval, and at the budget's rate."""

from __future__ import annotations

from dataclasses import replace

from bench.flows import Flows, lines
from bench.stats import Ratio

FOUND = Flows(
    requests=990.0,
    requests_without=1000.0,
    requests_ratio=Ratio(0.99, 0.98, 1.0, 7),
    cpu_ratio=Ratio(1.01, 1.0, 1.02, 7),
    connections=500.0,
    connections_without=500.0,
    connections_ratio=Ratio(1.0, 0.9, 1.1, 7),
    connections_cpu_ratio=Ratio(1.05, 1.0, 1.1, 7),
    agent=0.014,
    agent_rate=2500.0,
    agent_idle=0.004,
)


def test_the_hooks_are_light_only_if_the_worse_end_is() -> None:
    assert FOUND.light
    assert not replace(FOUND, requests_ratio=Ratio(0.99, 0.96, 1.02, 7)).light


def test_the_agents_share_is_taken_at_the_rate_of_the_budget() -> None:
    assert FOUND.agent_at_budget == 0.02
    assert FOUND.quiet
    assert not replace(FOUND, agent=0.02).quiet
    assert replace(FOUND, agent_rate=10_000.0).agent_at_budget == 0.01, (
        "fewer connections are not promised to cost less"
    )


def test_the_tables_say_what_was_held() -> None:
    text = "\n".join(lines(FOUND))
    assert "990 | 1000 | 0.990 (0.980-1.000) | held" in text
    assert "0.0140 at 2500/s | 0.0040 | 0.0200 | held" in text
