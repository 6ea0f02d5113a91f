"""The arithmetic behind every published ratio."""

from __future__ import annotations

import math
from random import Random

import pytest

from ambient.errors import InvalidInput
from bench.stats import interval, middle_of, paired_ratio, quantile_t


def test_a_constant_ratio_has_an_interval_without_width() -> None:
    ratio = paired_ratio([2.0, 4.0, 8.0], [1.0, 2.0, 4.0])
    assert (ratio.mean, ratio.low, ratio.high, ratio.pairs) == pytest.approx((2.0, 2.0, 2.0, 3))


def test_the_interval_is_students_on_the_logarithms() -> None:
    # ln ratios 0, 0, 0.3: mean 0.1, standard deviation 0.17321, t(2) = 4.303.
    ratio = paired_ratio([1.0, 1.0, math.exp(0.3)], [1.0, 1.0, 1.0])
    half = 4.303 * math.sqrt(0.03) / math.sqrt(3)
    assert math.log(ratio.mean) == pytest.approx(0.1)
    assert math.log(ratio.high) - math.log(ratio.mean) == pytest.approx(half, rel=1e-6)


def test_turning_the_sides_round_inverts_ratio_and_interval() -> None:
    ours, theirs = [3.0, 5.0, 4.0, 6.0], [2.0, 6.0, 3.0, 5.0]
    one, other = paired_ratio(ours, theirs), paired_ratio(theirs, ours)
    assert one.mean == pytest.approx(1 / other.mean)
    assert one.low == pytest.approx(1 / other.high)


def test_what_both_sides_share_cancels_out() -> None:
    # The machine is ten times slower in one round: the pairs do not see it.
    ratio = paired_ratio([20.0, 2.0, 20.0], [10.0, 1.0, 10.0])
    assert (ratio.low, ratio.high) == pytest.approx((2.0, 2.0))


def test_the_interval_holds_the_truth_in_95_of_100_cases() -> None:
    random, held, runs = Random(7), 0, 2_000
    for _ in range(runs):
        theirs = [math.exp(random.gauss(0, 0.5)) for _ in range(7)]
        ratio = paired_ratio([1.3 * value * math.exp(random.gauss(0, 0.1)) for value in theirs], theirs)
        held += ratio.low <= 1.3 <= ratio.high
    assert held / runs == pytest.approx(0.95, abs=0.015)


def _coverage(inertia: float) -> float:
    """How often the interval of 256 pairs holds the truth, where each pair remembers the one before."""
    random, held, runs = Random(7), 0, 400
    for _ in range(runs):
        noise, mood = [], 0.0
        for _ in range(256):
            mood = inertia * mood + random.gauss(0, 0.1)
            noise.append(1.3 * math.exp(mood))
        ratio = paired_ratio(noise, [1.0] * len(noise))
        held += ratio.low <= 1.3 <= ratio.high
    return held / runs


def test_many_pairs_hold_the_truth_also_where_neighbours_are_alike() -> None:
    assert _coverage(0.0) >= 0.94
    assert _coverage(0.7) >= 0.90


def test_a_machine_that_changes_its_mood_widens_the_interval() -> None:
    moody = [1.0] * 16 + [1.2] * 16
    steady = [1.0, 1.2] * 16
    assert paired_ratio(moody * 8, [1.0] * 256).high > paired_ratio(steady * 8, [1.0] * 256).high + 0.01


def test_a_pair_with_nothing_on_one_side_is_left_out_and_counted() -> None:
    ratio = paired_ratio([2.0, 0.0, 4.0, 6.0], [1.0, 9.0, 2.0, 3.0])
    assert (ratio.mean, ratio.pairs, ratio.empty) == (pytest.approx(2.0), 3, 1)
    assert str(ratio) == "2.000 (2.000-2.000), 1 empty left out"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ([1.0], [1.0]),
        ([1.0, 2.0], [1.0]),
        ([1.0, 0.0], [1.0, 1.0]),
        ([1.0, math.nan], [1.0, 1.0]),
        ([1.0, -1.0], [1, 1]),
    ],
)
def test_pairs_that_say_nothing_are_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(InvalidInput):
        paired_ratio(ours, theirs)


@pytest.mark.parametrize(("freedom", "point"), [(1, 12.706), (6, 2.447), (30, 2.042), (60, 2.000), (120, 1.980)])
def test_the_points_of_students_distribution(freedom: int, point: float) -> None:
    assert quantile_t(freedom) == pytest.approx(point, abs=1e-3)


def test_no_degrees_of_freedom_are_refused() -> None:
    with pytest.raises(InvalidInput):
        quantile_t(0)


def test_the_middle_of_nothing_is_zero() -> None:
    assert middle_of([]) == 0.0
    assert middle_of([3, 1, 2]) == 2.0


def test_a_third_digit_is_said_where_it_means_something() -> None:
    assert interval(1.0, 0.98, 1.021) == "1.000 (0.980-1.021)"
    assert interval(1.0, 0.8, 1.21) == "1.00 (0.80-1.21)"
