"""Which waypoint stands before what, row by row."""

from __future__ import annotations

import pytest

from tests.support.derivation import Row, table


@pytest.mark.parametrize("row", table("waypoint"), ids=lambda row: row.name)
def test_row(row: Row) -> None:
    row.check()
