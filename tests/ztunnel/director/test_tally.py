"""Totals over workers: nothing is lost and nothing goes backwards when one dies."""

from __future__ import annotations

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
        tally.hello(slot, 100 + slot)
        tally.report(slot, 100 + slot, counters(3, other=2, gauge=1.5))
    assert tally.series() == {("a", "b"): (6, 0, 0, 60, 0)}
    assert tally.other() == {"x": 4}
    assert tally.gauges() == {"g": 3.0}


def test_a_restarted_worker_begins_on_top_of_what_its_predecessor_counted() -> None:
    tally = Tally()
    tally.hello(0, 1)
    tally.report(0, 1, counters(5, other=1, gauge=9))
    tally.gone(0, 1)
    assert tally.series()["a", "b"][0] == 5
    assert tally.gauges() == {}
    tally.hello(0, 2)
    assert tally.series()["a", "b"][0] == 5
    tally.report(0, 2, counters(1))
    assert tally.series()["a", "b"] == (6, 0, 0, 60, 0)


def test_the_same_process_that_reconnects_is_not_counted_twice() -> None:
    tally = Tally()
    tally.hello(0, 1)
    tally.report(0, 1, counters(5))
    tally.gone(0, 1)
    tally.hello(0, 1)
    tally.report(0, 1, counters(7))
    assert tally.series()["a", "b"][0] == 7


def test_a_late_report_of_a_replaced_process_is_ignored() -> None:
    tally = Tally()
    tally.hello(0, 1)
    tally.hello(0, 2)
    tally.report(0, 1, counters(5))
    assert tally.series() == {}


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["die", "count"]), st.integers(0, 9))))
def test_no_counter_ever_goes_backwards(history: list[tuple[int, str, int]]) -> None:
    tally = Tally()
    pids = {slot: slot for slot in range(3)}
    totals = dict.fromkeys(range(3), 0)
    for slot in range(3):
        tally.hello(slot, pids[slot])
    last = grand = 0
    for slot, what, amount in history:
        if what == "die":
            tally.gone(slot, pids[slot])
            pids[slot] += 10
            totals[slot] = 0
            tally.hello(slot, pids[slot])
        else:
            totals[slot] += amount
            grand += amount
            tally.report(slot, pids[slot], counters(totals[slot]))
        now = tally.series().get(("a", "b"), (0,))[0]
        assert last <= now == grand
        last = now
