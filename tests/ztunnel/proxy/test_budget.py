"""Budgets of one pod over several workers: shares of one ledger, with a clock that stands until it is moved."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from ambient.errors import InvalidInput
from ztunnel.budgets import KINDS, Budgets
from ztunnel.proxy.budget import HANDSHAKES, OPEN, TAKEN, WAITING, Ledger, Ledgers, Share, read_ledger

COLUMNS, ROWS = 3, 4


class Node:
    """Workers with one ledger."""

    def __init__(self, **limits: float) -> None:
        self.now = 1_000.0
        self.limits = Budgets(**limits)  # type: ignore[arg-type]
        self.cells = memoryview(bytearray(8 * ROWS * KINDS * COLUMNS)).cast("q")
        self.counted: Counter[str] = Counter()
        self.said: list[str] = []

    def share(self, worker: int = 0, row: int = 0) -> Share:
        ledger = Ledger(self.cells, COLUMNS, worker)
        return Share(ledger, row, self.limits, lambda: self.now, self._count, self.said.append)

    def _count(self, name: str) -> None:
        self.counted[name] += 1

    def take(self, share: Share, most: int = 10_000) -> int:
        """Connections that it may have now."""
        taken = 0
        while taken < most and not share.pause_before_next():
            share.add(TAKEN, 1)
            taken += 1
        return taken


def test_open_connections_are_counted_over_all_workers_and_given_back() -> None:
    node = Node(open_connections=3)
    one, two = node.share(0), node.share(1)
    one.add(OPEN, 2)
    assert not two.full()
    two.add(OPEN, 1)
    assert one.full()
    assert two.full()
    one.add(OPEN, -1)
    assert not two.full()
    assert node.counted == {'pod_budget_reached{budget="open_connections"}': 2}


def test_what_one_pod_takes_is_not_counted_for_another() -> None:
    node = Node(open_connections=1)
    greedy, other = node.share(0, row=0), node.share(0, row=1)
    greedy.add(OPEN, 1)
    assert greedy.full()
    assert not other.full()


def test_alone_on_its_node_a_pod_may_open_as_many_connections_as_it_can() -> None:
    node = Node(connections_per_second=10)
    assert node.take(node.share(), 5_000) == 5_000
    assert not node.counted


def test_while_another_is_at_work_it_gets_its_rate_and_a_burst_all_workers_together() -> None:
    node = Node(connections_per_second=10)
    one, two = node.share(0), node.share(1)
    node.share(2, row=1).worked()
    assert node.take(one) == 20
    assert node.take(two) == 0
    node.now += 1.0
    node.share(2, row=1).worked()
    assert node.take(two) + node.take(one) == 10
    assert node.counted


def test_whoever_works_alone_is_not_held_back_by_its_own_work_nor_by_work_long_over() -> None:
    node = Node(connections_per_second=10)
    share, other = node.share(0), node.share(1, row=1)
    share.worked()
    other.worked()
    node.now += 5.0
    share.worked()
    assert node.take(share, 500) == 500


def test_a_pause_is_as_long_as_the_next_connection_takes_and_bounded() -> None:
    node = Node(connections_per_second=100)
    share = node.share()
    node.share(1, row=1).worked()
    node.take(share)
    assert share.pause_before_next() == pytest.approx(0.01, abs=0.001)
    share.add(TAKEN, 100_000)
    assert share.pause_before_next() == 0.1


def test_handshakes_in_progress_hold_back_tunnels_and_nothing_else() -> None:
    node = Node(handshakes=2)
    one, two = node.share(0), node.share(1)
    one.add(HANDSHAKES, 1)
    assert two.pause_before_more_handshakes() == 0.0
    two.add(HANDSHAKES, 1)
    assert one.pause_before_more_handshakes() > 0
    assert one.pause_before_next() == 0.0
    two.add(HANDSHAKES, -1)
    assert one.pause_before_more_handshakes() == 0.0


def test_octets_that_wait_hold_back_new_connections_and_make_the_others_wait() -> None:
    node = Node(waiting=1_000)
    one, two = node.share(0), node.share(1)
    one.add(WAITING, 1_000)
    assert two.pause_before_next() == 0.0
    two.add(WAITING, 1)
    assert one.crowded()
    assert one.pause_before_next() > 0
    two.add(WAITING, -1)
    assert not one.crowded()
    assert one.pause_before_next() == 0.0


def test_without_budgets_nothing_holds() -> None:
    node = Node()
    share = node.share()
    for kind in (OPEN, HANDSHAKES, WAITING):
        share.add(kind, 1 << 40)
    assert not share.full()
    assert not share.crowded()
    assert share.pause_before_more_handshakes() == 0.0


def test_the_log_hears_of_it_now_and_then_the_counter_every_time() -> None:
    node = Node(open_connections=1)
    share = node.share()
    share.add(OPEN, 1)
    for _ in range(10):
        assert share.full()
    assert node.said == ["budget open_connections reached: 1 open connections"]
    node.now += 6.0
    share.full()
    assert len(node.said) == 2
    assert sum(node.counted.values()) == 11


def test_a_pod_that_goes_leaves_nothing_in_the_ledger() -> None:
    node = Node()
    share = node.share(1, row=2)
    share.add(OPEN, 5)
    share.worked()
    share.close()
    assert not any(node.cells)
    share.add(OPEN, -5)
    share.worked()
    assert not any(node.cells)


def test_a_share_takes_its_counts_along_to_another_ledger() -> None:
    old, new = Node(open_connections=2), Node()
    share = old.share(0, row=3)
    share.add(OPEN, 2)
    share.move(Ledger(new.cells, COLUMNS, 1), 0)
    assert not any(old.cells)
    assert share.full()
    assert new.share(0).total(OPEN) == 2


def test_without_a_row_of_the_directors_a_worker_counts_for_itself() -> None:
    ledgers = Ledgers()
    (first, row), (second, other) = ledgers.place(-1), ledgers.place(7)
    assert first is second
    assert row != other
    given = Ledger(memoryview(bytearray(8 * ROWS * KINDS * COLUMNS)).cast("q"), COLUMNS, 0)
    ledgers.given = given
    assert ledgers.place(ROWS - 1) == (given, ROWS - 1)
    assert ledgers.place(ROWS)[0] is first


@pytest.mark.parametrize(("size", "columns", "column"), [(0, 1, 0), (8 * KINDS, 1, 1), (8 * KINDS + 8, 1, 0)])
def test_memory_that_is_no_ledger_is_refused(size: int, columns: int, column: int) -> None:
    descriptor = os.memfd_create("ledger")
    os.ftruncate(descriptor, size)
    with pytest.raises(InvalidInput, match="not a ledger"):
        read_ledger(descriptor, columns, column)
    os.close(descriptor)
