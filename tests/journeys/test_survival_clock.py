"""Every clock of the mesh jumps, under load, and is put right: no certificate is valid, or all are from the future."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.faults import BUSY_S, Fault, deal
from tests.support.faults_clock import CLOCKS, shiftable_clocks
from tests.support.journey import Journey, journey
from tests.support.survival import guarded


@pytest.fixture(scope="module")
def mesh() -> Iterator[Journey]:
    with shiftable_clocks() as env, journey("clock", env=env) as found, guarded(found):
        yield found


@pytest.mark.parametrize("fault", CLOCKS, ids=lambda fault: fault.name)
def test_under_load_nothing_forbidden_happens_and_it_is_over_by_itself(mesh: Journey, fault: Fault) -> None:
    verdict = deal(fault, mesh)
    print(f"\n{fault.name}: {verdict}")
    assert not fault.broken(verdict, busy_s=BUSY_S), str(verdict)
