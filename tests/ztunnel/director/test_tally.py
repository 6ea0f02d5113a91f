"""Totals over workers: nothing is lost and nothing goes backwards when one dies."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.director.tally import Tally
from ztunnel.ipc.messages import Counters, Series


def counters(opened: int, other: int = 0, gauge: float = 0.0) -> Counters:
    series = (Series(labels=("a", "b"), opened=opened, closed=0, failed=0, received=opened * 10, sent=0),)
    return Counters(series=series, other={"x": other}, gauges={"g": gauge})


def test_workers_are_added_up() -> None:
    tally = Tally()
    for slot in (0, 1):
        tally.hello(100 + slot)
        tally.report(100 + slot, counters(3, other=2, gauge=1.5))
    assert tally.series() == {("a", "b"): (6, 0, 0, 60, 0)}
    assert tally.other() == {"x": 4}
    assert tally.gauges() == {"g": 3.0}


def test_a_restarted_worker_begins_on_top_of_what_its_predecessor_counted() -> None:
    tally = Tally()
    tally.hello(1)
    tally.report(1, counters(5, other=1, gauge=9))
    tally.gone(1)
    assert tally.series()["a", "b"][0] == 5
    assert tally.gauges() == {}
    tally.hello(2)
    assert tally.series()["a", "b"][0] == 5
    tally.report(2, counters(1))
    assert tally.series()["a", "b"] == (6, 0, 0, 60, 0)


def test_the_same_process_that_reconnects_is_not_counted_twice() -> None:
    tally = Tally()
    tally.hello(1)
    tally.report(1, counters(5))
    tally.gone(1)
    tally.hello(1)
    tally.report(1, counters(7))
    assert tally.series()["a", "b"][0] == 7


def test_what_a_leaving_worker_counts_last_is_not_lost_when_another_has_its_slot() -> None:
    tally = Tally()
    tally.hello(1)
    tally.report(1, counters(5, other=2))
    tally.hello(2)
    tally.report(2, counters(1, other=1))
    tally.report(1, counters(7, other=3))
    tally.gone(1)
    assert tally.series()["a", "b"] == (8, 0, 0, 80, 0)
    assert tally.other() == {"x": 4}


def test_a_stranger_counts_for_nothing() -> None:
    tally = Tally()
    tally.report(1, counters(5))
    assert tally.series() == {}


def test_a_new_process_under_an_old_number_begins_at_zero() -> None:
    tally = Tally()
    tally.hello(1)
    tally.report(1, counters(5, other=9))
    tally.gone(1)
    tally.hello(1)
    tally.report(1, counters(2, other=1))
    assert tally.series()["a", "b"][0] == 7
    assert tally.other() == {"x": 10}


def test_a_forgotten_series_keeps_its_total_and_goes_on_from_zero() -> None:
    tally = Tally()
    tally.hello(1)
    tally.report(1, replace(counters(5), forgotten=(("a", "b"),)))
    assert tally.series()["a", "b"][0] == 5
    tally.report(1, counters(6))
    assert tally.series()["a", "b"][0] == 11


def one(name: str, opened: int) -> Counters:
    return Counters(series=(Series(labels=("source", name), opened=opened, closed=0, failed=0, received=0, sent=0),))


def test_beyond_the_limit_label_sets_share_a_line_and_the_busiest_get_their_own() -> None:
    tally = Tally(limit=2)
    tally.hello(1)
    for name, opened in (("quiet", 1), ("middling", 5), ("late", 100)):
        tally.report(1, one(name, opened))
    rest = ("source", "overflow")
    assert {labels[1]: amounts[0] for labels, amounts in tally.series().items()} == {
        "quiet": 1,
        "middling": 5,
        "overflow": 100,
    }
    tally.rank()
    tally.report(1, one("late", 130))
    tally.report(1, one("quiet", 2))
    assert {labels[1]: amounts[0] for labels, amounts in tally.series().items()} == {
        "middling": 5,
        "late": 30,
        "overflow": 101,
    }
    assert tally.series()[rest][0] == 101


def test_sets_that_are_about_as_busy_do_not_take_turns() -> None:
    tally = Tally(limit=1)
    tally.hello(1)
    tally.report(1, one("first", 10))
    tally.report(1, one("second", 15))
    tally.rank()
    assert ("source", "first") in tally.series()


def test_nothing_is_counted_twice_however_lines_change_hands() -> None:
    tally = Tally(limit=3)
    tally.hello(1)
    seen: dict[tuple[str, ...], int] = {}
    counted = 0
    for turn in range(40):
        for number in range(20):
            tally.report(1, one(f"n{number}", (turn + 1) * (1 + (number + turn) % 7)))
            now = {labels: amounts[0] for labels, amounts in tally.series().items()}
            counted += sum(max(0, value - seen.get(labels, 0)) for labels, value in now.items())
            seen = now
        tally.rank()
    # What Prometheus' rate() would add up, against what was reported; a smaller total means a new beginning.
    reported, last = 0, dict.fromkeys(range(20), 0)
    for turn in range(40):
        for number in range(20):
            value = (turn + 1) * (1 + (number + turn) % 7)
            reported += value - last[number] if value >= last[number] else value
            last[number] = value
    assert counted == reported


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["die", "count"]), st.integers(0, 9))))
def test_no_counter_ever_goes_backwards(history: list[tuple[int, str, int]]) -> None:
    tally = Tally()
    pids = {slot: slot for slot in range(3)}
    totals = dict.fromkeys(range(3), 0)
    for slot in range(3):
        tally.hello(pids[slot])
    last = grand = 0
    for slot, what, amount in history:
        if what == "die":
            tally.gone(pids[slot])
            pids[slot] += 10
            totals[slot] = 0
            tally.hello(pids[slot])
        else:
            totals[slot] += amount
            grand += amount
            tally.report(pids[slot], counters(totals[slot]))
        now = tally.series().get(("a", "b"), (0,))[0]
        assert last <= now == grand
        last = now
