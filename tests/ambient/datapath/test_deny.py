"""What a table refuses before the kernel is asked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from ambient.datapath import deny
from ambient.datapath.deny import DenyRow, DenyTables
from ambient.datapath.layout import Side
from ambient.errors import KernelError


def test_more_rows_than_a_table_may_have_are_refused_by_name() -> None:
    class NoKernel:
        def put_many(self, entries: Mapping[bytes, bytes]) -> None:
            assert not entries

    tables = DenyTables(cast(Any, NoKernel()), cast(Any, NoKernel()), most=1)
    table = (IPv4Address("10.0.0.1"), Side.OUT)
    refused = tables.replace({table: [DenyRow(1, (0, 0)), DenyRow(2, (0, 0))]})
    assert str(refused[table]) == "too many rows of policy: OUT of 10.0.0.1: 2 of 1"


class OuterMap:
    """A map of maps that takes no new key."""

    def __init__(self, kept: Mapping[bytes, bytes]) -> None:
        self.kept = dict(kept)

    def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        for key, value in entries.items():
            self.put(key, value)

    def put(self, key: bytes, value: bytes) -> None:
        if key not in self.kept:
            raise KernelError("the kernel refuses a map operation", "deny", "full")
        self.kept[key] = value

    def walk(self) -> list[bytes]:
        return list(self.kept)


def test_a_full_map_takes_the_tables_that_are_there_whatever_comes_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    new, there = (IPv4Address("10.0.0.1"), Side.UDP_IN), (IPv4Address("10.0.0.2"), Side.UDP_IN)
    outer = OuterMap({deny._key(*there): b"old!"})
    monkeypatch.setattr("ambient.datapath.bpfsys.make_filled", lambda *_: os.open("/dev/null", os.O_RDONLY))
    refused = DenyTables(cast(Any, outer), cast(Any, None)).replace({new: [DenyRow(1, (0, 0))], there: []})
    assert refused.keys() == {new}
    assert outer.kept[deny._key(*there)] != b"old!"


def test_tables_of_a_side_that_only_another_version_has_are_left_out() -> None:
    known = (IPv4Address("10.0.0.2"), Side.UDP_IN)
    other = deny._key(*known)[:16] + (99).to_bytes(4, "little")
    assert DenyTables(cast(Any, OuterMap({deny._key(*known): b"", other: b""})), cast(Any, None)).tables() == [known]
