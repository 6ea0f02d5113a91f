"""What a table refuses before the kernel is asked."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from ambient.datapath.deny import DenyRow, DenyTables
from ambient.datapath.layout import Side
from ambient.errors import KernelError


def test_more_rows_than_a_table_may_have_are_refused_by_name() -> None:
    nobody_asks = cast(Any, None)
    tables = DenyTables(nobody_asks, most=1)
    with pytest.raises(KernelError, match=r"too many rows of policy: OUT of 10\.0\.0\.1: 2 of 1"):
        tables.replace(IPv4Address("10.0.0.1"), Side.OUT, [DenyRow(1, (0, 0)), DenyRow(2, (0, 0))])
