"""What is said of refusals follows the figures."""

from __future__ import annotations

from dataclasses import replace

from bench.refuse import MOST_CPU, MOST_MORE_US, MOST_US, SYNS, Refuse, lines
from bench.stats import Ratio

HELD = Refuse(40.0, 30.0, 20.0, 15.0, Ratio(1.3, 1.2, 1.4, 7), 0.001, 0.002, SYNS)


def test_a_budget_is_held_or_missed_by_its_own_figure() -> None:
    assert (HELD.quick, HELD.unchanged) == (True, True)
    assert not replace(HELD, denied_us=MOST_US).quick
    assert not replace(HELD, captured_us=HELD.direct_us + 2 * MOST_MORE_US).light
    assert not replace(HELD, cpu_flooded=HELD.cpu_beside + 2 * MOST_CPU).unchanged


def test_a_flood_that_was_none_proves_nothing() -> None:
    assert not replace(HELD, syns=SYNS * 0.9).unchanged


def test_the_table_says_both() -> None:
    text = "\n".join(lines(replace(HELD, denied_us=500.0)))
    assert text.count("| held |") == 2
    assert text.count("| **missed** |") == 1
