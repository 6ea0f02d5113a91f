"""What is made of the bystander's slices, also where some say nothing."""

from __future__ import annotations

import pytest

from bench.fair import Fair, lines, summed


def _slice(p99: float, errors: int = 0, late: int = 0) -> dict[str, float]:
    return {"p50_us": p99 / 2, "p99_us": p99, "errors": errors, "late": late}


def _found(*beside: dict[str, float]) -> Fair:
    alone = [_slice(100.0), _slice(100.0)]
    return summed({"alone": [alone, alone, alone], "beside": [[*beside], [_slice(150.0)] * 2, [_slice(150.0)] * 2]})


def test_slices_in_a_row_are_one_observation() -> None:
    found = _found(_slice(75.0), _slice(300.0))
    assert (found.ratio.mean, found.ratio.pairs) == (pytest.approx(1.5), 3)
    assert found.held


def test_a_slice_that_says_nothing_is_counted_and_does_not_lose_the_run() -> None:
    found = _found(_slice(0.0), _slice(150.0))
    assert (found.ratio.mean, found.ratio.empty, found.empty) == (pytest.approx(1.5), 0, 1)
    assert not found.held, "nobody knows how late the bystander was"


def test_a_row_that_says_nothing_is_left_out_and_counted() -> None:
    found = _found(_slice(0.0), _slice(0.0))
    assert (found.ratio.pairs, found.ratio.empty, found.empty) == (2, 1, 2)


def test_errors_and_late_answers_are_printed() -> None:
    found = _found(_slice(150.0, errors=1), _slice(150.0, late=2))
    assert not found.held
    assert lines(found, 2)[-1] == "errors 1, late 2, empty slices 0"
