"""Under load nothing fails, a reset arrives as a reset, stalls stay with those who stall, and all is given back.

The same scenes in full size are `./dev campaign load`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.journey import FAR, NEAR, Journey
from tests.support.load import crowd, peers, resets, sequence, stall, trickle, warm
from tests.support.load_ledger import Ledger, at_rest, leftovers, watched


@pytest.fixture(scope="module", autouse=True)
def before(mesh: Journey) -> Iterator[Ledger]:
    """What the mesh holds before; while the tests run no socket may linger in CLOSE-WAIT."""
    with peers(mesh), watched(mesh.lab) as watch:
        warm(mesh)
        yield at_rest(mesh)
    assert not watch.broken()


@pytest.fixture(autouse=True)
def _given_back(mesh: Journey, before: Ledger) -> Iterator[None]:
    yield
    assert not leftovers(mesh, before)


def test_one_connection_after_the_other_succeeds(mesh: Journey) -> None:
    scene = sequence(mesh, 2_000)
    assert not scene.broken, str(scene)


def test_hundreds_of_connections_are_open_at_once(mesh: Journey) -> None:
    scene = crowd(mesh, 500)
    assert not scene.broken, str(scene)


def test_what_is_sent_octet_by_octet_arrives(mesh: Journey) -> None:
    scene = trickle(mesh, 16_384)
    assert not scene.broken, str(scene)


def test_a_reset_arrives_as_a_reset_from_either_side_at_every_stage(mesh: Journey) -> None:
    scene = resets(mesh, 3)
    assert not scene.broken, str(scene)


def test_sabotage_an_orderly_end_in_the_place_of_a_reset_is_noticed(mesh: Journey) -> None:
    said = str(resets(mesh, 1, "sabotage", paths=1))
    for stage in ("right after the connect", "before it said anything", "mid-request", "after the request"):
        assert f"client, {stage}: the server saw " in said
    assert "server, mid-response: a clean end after 20000 octets" in said


@pytest.mark.parametrize("pod", [NEAR, FAR])
@pytest.mark.parametrize("then", ["read", "die"])
def test_who_stalls_costs_a_fixed_amount_and_harms_nobody_else(mesh: Journey, pod: str, then: str) -> None:
    scene = stall(mesh, pod, 40, then=then)
    assert not scene.broken, str(scene)
