"""What a table refuses before the kernel is asked."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any, cast

from ambient.datapath.deny import DenyRow, DenyTables
from ambient.datapath.layout import Side


def test_more_rows_than_a_table_may_have_are_refused_by_name() -> None:
    class NoKernel:
        def put_many(self, entries: Mapping[bytes, bytes]) -> None:
            assert not entries

    tables = DenyTables(cast(Any, NoKernel()), cast(Any, NoKernel()), most=1)
    table = (IPv4Address("10.0.0.1"), Side.OUT)
    refused = tables.replace({table: [DenyRow(1, (0, 0)), DenyRow(2, (0, 0))]})
    assert str(refused[table]) == "too many rows of policy: OUT of 10.0.0.1: 2 of 1"
