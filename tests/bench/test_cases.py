"""What the load generator prints becomes figures in one place."""

from __future__ import annotations

import pytest

from bench.cases import CASES, sample_of

BY_NAME = {case.name: case for case in CASES}
FOUND = {"count": 100, "all": 200, "bytes": 0, "errors": 3, "seconds": 0.5, "p50_us": 7.0, "p99_us": 9.0}


def test_requests_have_a_rate_of_what_was_measured_and_a_cost_of_everything() -> None:
    sample = sample_of(BY_NAME["rr64"], FOUND, {"cpu": 4_000_000, "cpu waypoint": 2_000_000})
    assert sample.figures == {"rate": 200.0, "p50": 7.0, "p99": 9.0, "cpu": 20.0, "cpu waypoint": 10.0}
    assert sample.errors == 3


def test_bulk_has_gigabits_and_a_cost_per_megabyte() -> None:
    found = {**FOUND, "bytes": 1_000_000_000, "all": 2_000_000_000}
    sample = sample_of(BY_NAME["bulk8"], found, {"cpu": 4_000_000_000})
    assert sample.figures == pytest.approx({"gbit": 16.0, "cpu": 2000.0})


def test_what_carried_nothing_has_no_cost() -> None:
    assert sample_of(BY_NAME["crr"], {**FOUND, "count": 0, "all": 0}, {"cpu": 4_000_000}).figures["cpu"] == 0.0
