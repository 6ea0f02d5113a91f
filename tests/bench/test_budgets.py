"""A budget is held only when the worse end of the interval holds."""

from __future__ import annotations

from typing import Any

import pytest

from bench.budgets import lines, verdicts


def ratio(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high, "pairs": 7}


def run(case: str, figure: str, found: dict[str, float]) -> dict[str, Any]:
    return {"cases": {case: {"ratio_to": {"envoy": {figure: found}}, "arms": {"ambient": {}}}}}


@pytest.mark.parametrize(
    ("case", "figure", "found", "held"),
    [
        ("rr64", "rate", ratio(1.4, 1.25, 1.6), True),
        ("rr64", "rate", ratio(1.4, 1.24, 1.6), False),
        ("bulk8", "gbit", ratio(1.3, 1.1, 1.5), False),
        ("rr1", "p99", ratio(0.8, 0.6, 1.0), True),
        ("rr1", "p50", ratio(0.9, 0.7, 1.01), False),
    ],
)
def test_the_worse_end_of_the_interval_counts(case: str, figure: str, found: dict[str, float], held: bool) -> None:
    (one,) = verdicts(run(case, figure, found), "envoy")
    assert one.held is held
    assert str(one).startswith("held" if held else "MISSED")
    assert ("**missed**" in lines([one])[-1]) is not held


def test_against_nobody_only_absolute_budgets_are_told() -> None:
    found = run("rr64", "rate", ratio(2.0, 2.0, 2.0))
    found["cases"]["crr"] = {"ratio_to": {}, "arms": {"ambient": {"cpu": [300.0, 900.0, 401.0]}}}
    (one,) = verdicts(found, "no such arm")
    assert (one.what, one.found, one.held) == ("CPU per new connection, both ends", "401 us", False)


def test_memory_is_added_up_over_all_processes_of_an_arm() -> None:
    def size(arm: str, role: str, mib: int) -> dict[str, Any]:
        return {"arm": arm, "role": role, "idle": {}, "loaded": {"pss": mib * 1024, "private": mib * 1024}}

    sizes = [
        size("ambient", "ztunnel.worker 0", 26),
        size("ambient", "ztunnel.director", 60),
        size("envoy", "envoy", 90),
    ]
    worker, director, all_of_it = verdicts({"memory": sizes}, "envoy")
    assert (worker.held, director.held, all_of_it.held) == (False, True, True)


def test_judging_and_workloads_are_judged_by_the_worst_row() -> None:
    rows = [
        {"many_us": 2.0, "ratio": ratio(1.0, 0.9, 1.1)},
        {"many_us": 5.1, "ratio": ratio(1.1, 1.0, 1.3)},
    ]
    known = {
        "workloads": 1000,
        "before": {"ztunnel.director": 0, "agent": 0},
        "after": {"ztunnel.director": 900, "agent": 9000},
    }
    assert [one.held for one in verdicts({"judging": rows, "workloads": known}, "envoy")] == [False, False, True]


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, set()),
        ({"load_s": 10.1}, {"a large cluster served"}),
        ({"memory_most": 600.0}, {"a control plane's memory"}),
        ({"policy_ms": [1.0, 400.0]}, {"a policy change at 50 nodes, p99"}),
        ({"pods_ms": [1.0, 2000.0]}, {"100 pod changes/s, p99"}),
        ({"back_bytes": 11}, {"sent to who comes back"}),
    ],
)
def test_each_promise_of_scale_is_judged(change: dict[str, object], missed: set[str]) -> None:
    found = {"load_s": 9.0, "memory_most": 500.0, "policy_ms": [1.0, 2.0], "pods_ms": [1.0, 2.0]}
    found |= {"first_bytes": 1000, "back_bytes": 9, **change}
    judged = verdicts({"scale": found}, "")
    assert len(judged) == 5
    assert {one.what for one in judged if not one.held} == missed
