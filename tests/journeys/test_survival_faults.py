"""Every other fault once, under load; the campaign deals each of them many times."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.faults import BUSY_S, STATE, Fault, deal
from tests.support.faults_node import SURROUNDINGS
from tests.support.journey import Journey
from tests.support.survival import guarded


@pytest.fixture(scope="module", autouse=True)
def _rules(mesh: Journey) -> Iterator[None]:
    with guarded(mesh):
        yield


@pytest.mark.parametrize("fault", [*STATE, *SURROUNDINGS], ids=lambda fault: fault.name)
def test_under_load_nothing_forbidden_happens_and_it_is_over_by_itself(mesh: Journey, fault: Fault) -> None:
    verdict = deal(fault, mesh)
    print(f"\n{fault.name}: {verdict}")
    assert not fault.broken(verdict, busy_s=BUSY_S), str(verdict)
