"""What becomes of objects, row by row: the table `target`."""

from __future__ import annotations

import pytest

from tests.support.derivation import Row, table


@pytest.mark.parametrize("row", table("target"), ids=lambda row: row.name)
def test_row(row: Row) -> None:
    row.check()
