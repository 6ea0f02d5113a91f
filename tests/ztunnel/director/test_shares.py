"""Rows and columns of the node's ledger, and that workers and director mean the same memory."""

from __future__ import annotations

from ztunnel.budgets import Budgets
from ztunnel.director.shares import NO_ROW, ROWS, SPARE, Shares
from ztunnel.proxy.budget import OPEN, Share, read_ledger


def worker_of(ours: Shares, pid: int, uid: str) -> Share:
    given = ours.join(pid)
    assert given is not None
    ledger = read_ledger(ours.fd, given.columns, given.column)
    return Share(ledger, ours.row(uid), Budgets(), lambda: 0.0, lambda _name: None, lambda _text: None)


def test_workers_of_a_node_see_each_others_counts() -> None:
    ours = Shares(2)
    one, two = worker_of(ours, 1, "a"), worker_of(ours, 2, "a")
    one.add(OPEN, 3)
    two.add(OPEN, 4)
    assert one.total(OPEN) == two.total(OPEN) == 7
    ours.close()


def test_what_a_worker_had_counted_goes_with_it() -> None:
    ours = Shares(2)
    one, two = worker_of(ours, 1, "a"), worker_of(ours, 2, "a")
    one.add(OPEN, 3)
    two.add(OPEN, 4)
    ours.left(1)
    ours.left(1)
    assert two.total(OPEN) == 4
    ours.close()


def test_a_row_is_the_pods_until_it_is_forgotten_and_comes_back_last() -> None:
    ours = Shares(1)
    first = ours.row("a")
    assert ours.row("a") == first
    assert ours.row("b") != first
    ours.forget("a")
    assert ours.row("c") != first
    for number in range(ROWS - 3):
        ours.row(str(number))
    assert ours.row("last") == first
    assert ours.row("one too many") == NO_ROW
    ours.forget("never there")
    ours.close()


def test_a_worker_too_many_counts_for_itself() -> None:
    ours = Shares(1)
    given = [ours.join(pid) for pid in range(1 + SPARE)]
    assert len({one.column for one in given if one is not None}) == 1 + SPARE
    assert ours.join(99) is None
    ours.left(0)
    assert ours.join(99) is not None
    ours.close()
