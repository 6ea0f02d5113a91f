"""The bounded store: order, numbers, and gaps that every follower learns of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.flows.record import Event, Flow
from ambient.flows.store import FlowStore


def flow(number: int) -> Flow:
    return Flow(
        event=Event.OPENED, time_unix=float(number), node="n1", direction="outbound", source="1:1", destination="2:2"
    )


def times(flows: tuple[Flow, ...]) -> list[float]:
    return [one.time_unix for one in flows]


def test_a_new_follower_gets_what_is_still_here_and_misses_nothing() -> None:
    store = FlowStore(3)
    store.add(flow(number) for number in range(5))
    batch = store.after(0)
    assert (times(batch.flows), batch.last, batch.missed) == ([2.0, 3.0, 4.0], 5, 0)
    assert len(store) == 3


def test_a_follower_goes_on_where_it_was() -> None:
    store = FlowStore(10)
    store.add([flow(0)])
    seen = store.after(0).last
    store.add([flow(1), flow(2)])
    batch = store.after(seen)
    assert (times(batch.flows), batch.missed) == ([1.0, 2.0], 0)
    assert store.after(batch.last).flows == ()


def test_a_slow_follower_is_told_how_many_it_missed() -> None:
    store = FlowStore(2)
    store.add([flow(0)])
    seen = store.after(0).last
    store.add(flow(number) for number in range(1, 6))
    batch = store.after(seen)
    assert (times(batch.flows), batch.missed) == ([4.0, 5.0], 3)


def test_what_never_arrived_counts_as_missed() -> None:
    store = FlowStore(10)
    store.add([flow(0)])
    seen = store.after(0).last
    store.lost(4)
    batch = store.after(seen)
    assert (batch.flows, batch.missed) == ((), 4)
    assert store.after(batch.last).missed == 0


def test_a_store_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="not positive"):
        FlowStore(0)


@given(st.lists(st.integers(0, 7), max_size=20), st.integers(1, 5), st.integers(1, 6))
def test_read_and_missed_always_add_up(rounds: list[int], capacity: int, limit: int) -> None:
    store = FlowStore(capacity)
    store.add([flow(0)])
    at, read, missed = 1, 0, 0
    total = 0
    for count in rounds:
        store.add(flow(number) for number in range(count))
        total += count
        batch = store.after(at, limit)
        assert len(batch.flows) <= limit
        at, read, missed = batch.last, read + len(batch.flows), missed + batch.missed
    while (batch := store.after(at, limit)).flows:
        at, read, missed = batch.last, read + len(batch.flows), missed + batch.missed
    assert read + missed == total
