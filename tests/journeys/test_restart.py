"""Planned restarts of both nodes' ztunnels under load cost nobody anything. In full size: `./dev campaign restart`."""

from __future__ import annotations

from tests.support.journey import Journey
from tests.support.load import peers
from tests.support.load_restarts import restarts


def test_restarts_in_a_loop_fail_no_connection_and_cut_no_conversation(mesh: Journey) -> None:
    with peers(mesh):
        scene = restarts(mesh, 1_000, per_second=100)
    print(scene)
    assert not scene.broken, str(scene)


def test_sabotage_a_ztunnel_that_is_killed_in_the_place_of_a_restart_is_noticed(mesh: Journey) -> None:
    with peers(mesh):
        scene = restarts(mesh, 100, per_second=50, how="KILL")
    said = str(scene)
    assert "a conversation was cut" in said
    assert "a conversation ended" in said
