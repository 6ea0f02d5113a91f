"""Who is measured when: by turns that let nobody have the better moments."""

from __future__ import annotations

from collections import Counter
from itertools import count

from bench.slices import BULK_S, in_turn, order, turns_of_bulk


def test_two_take_turns_there_and_back() -> None:
    rounds = [order(["one", "other"], number) for number in range(4)]
    assert rounds == [["one", "other"], ["other", "one"], ["other", "one"], ["one", "other"]]


def test_each_of_three_has_each_place_equally_often() -> None:
    places = Counter((title, at) for number in range(12) for at, title in enumerate(order(["a", "b", "c"], number)))
    assert set(places.values()) == {4}


def test_a_drift_of_the_machine_favours_nobody() -> None:
    clock = count(1)
    taken = in_turn({"one": lambda: next(clock), "other": lambda: next(clock)}, 100)
    assert sum(taken["one"]) == sum(taken["other"])
    assert all(abs(one - other) == 1 for one, other in zip(taken["one"], taken["other"], strict=True))


def test_bulk_is_measured_as_long_in_turns_that_are_longer() -> None:
    assert turns_of_bulk(200, 0.25) == (50, BULK_S)
    assert turns_of_bulk(9, 3.0) == (9, 3.0)
    assert turns_of_bulk(7, 0.25) == (7, BULK_S), "fewer say nothing"
