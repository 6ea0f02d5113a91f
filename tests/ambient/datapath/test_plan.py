"""The plan leads from present to wanted, refusing before it allows."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from ambient.datapath.layout import FailMode, Flag, PodRow
from ambient.datapath.plan import Delete, Put, plan
from ambient.model.address import IpAddress

A, B, C = (IPv4Address(f"10.0.0.{number}") for number in (1, 2, 3))
CAPTURED = PodRow(Flag.CAPTURE_OUT | Flag.CAPTURE_IN)
ATTACHED = PodRow()

addresses = st.sampled_from([A, B, C, IPv6Address("fd00::1"), IPv6Address("fd00::2")])
rows = st.builds(
    PodRow,
    st.sampled_from([Flag(0), Flag.HBONE_IN, Flag.CAPTURE_OUT, Flag.CAPTURE_IN | Flag.CAPTURE_OUT]),
    st.sampled_from(FailMode),
    st.sampled_from(FailMode),
    st.integers(0, 3),
)
tables = st.dictionaries(addresses, rows)


def carried_out(wanted: dict[IpAddress, PodRow], present: dict[IpAddress, PodRow]) -> dict[IpAddress, PodRow]:
    table = dict(present)
    for action in plan(wanted, present):
        match action:
            case Put(ip, row):
                table[ip] = row
            case Delete(ip):
                del table[ip]
    return table


@given(tables, tables)
def test_carried_out_it_gives_what_was_wanted(
    wanted: dict[IpAddress, PodRow], present: dict[IpAddress, PodRow]
) -> None:
    assert carried_out(wanted, present) == wanted


@given(tables)
def test_nothing_to_do_is_an_empty_plan(table: dict[IpAddress, PodRow]) -> None:
    assert plan(table, table) == ()


def test_rows_that_close_come_before_rows_that_open_and_deletions_last() -> None:
    present = {A: CAPTURED, B: ATTACHED, C: ATTACHED}
    wanted = {A: ATTACHED, B: CAPTURED}
    assert plan(wanted, present) == (Put(B, CAPTURED), Put(A, ATTACHED), Delete(C))


def test_closing_one_direction_counts_as_closing_even_when_the_other_opens() -> None:
    before = PodRow(CAPTURED.flags, FailMode.OPEN, FailMode.CLOSED)
    after = PodRow(CAPTURED.flags, FailMode.CLOSED, FailMode.OPEN)
    opened = PodRow(CAPTURED.flags, FailMode.OPEN, FailMode.OPEN)
    assert plan({A: opened, B: after}, {A: CAPTURED, B: before}) == (Put(B, after), Put(A, opened))
