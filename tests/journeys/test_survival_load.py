"""The table "what survives what" under load: connections open, new and forbidden ones, while each part dies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.faults import BUSY_S, CRASHES, deal
from tests.support.journey import Journey
from tests.support.survival import guarded


@pytest.fixture(scope="module", autouse=True)
def _rules(mesh: Journey) -> Iterator[None]:
    with guarded(mesh):
        yield


@pytest.mark.parametrize("turn", range(len(CRASHES)), ids=lambda turn: CRASHES[turn].name)
def test_under_load_nothing_forbidden_happens_and_it_is_back_by_itself(mesh: Journey, turn: int) -> None:
    """The nodes take turns; the campaign deals each to both."""
    fault = CRASHES[turn]
    verdict = deal(fault, mesh, turn)
    print(f"\n{fault.name}: {verdict}")
    assert not fault.broken(verdict, busy_s=BUSY_S), str(verdict)
