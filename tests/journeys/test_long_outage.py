"""The control plane is gone for days: what is known is served, also by a director that starts meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults_clock import HOUR_S, shift_clocks, shiftable_clocks
from tests.support.journey import FAR, NEAR, WEB, Journey, journey
from tests.support.lab import until
from tests.support.survival import nobody_restarts, running, whole

DAYS = 3 * 24 * HOUR_S


@pytest.fixture(scope="module")
def mesh() -> Iterator[Journey]:
    with shiftable_clocks() as env, journey("days", env={**env, "ztunnel:SECRET_TTL": "14d"}) as found:
        yield found


def all_reached(mesh: Journey) -> bool:
    return all(mesh.reaches(WEB, pod, version) for pod in (FAR, NEAR) for version in (4, 6))


def test_three_days_without_a_control_plane_and_a_director_that_dies_on_the_third(mesh: Journey) -> None:
    assert all_reached(mesh)
    with nobody_restarts(mesh):
        for pid in mesh.lab.status()["control"]["pids"]:
            mesh.lab.signal(pid, signal.SIGKILL.name.removeprefix("SIG"))
        with shift_clocks(mesh, DAYS):
            assert all_reached(mesh)
            for node in ("n1", "n2"):
                (before,) = running(mesh, node, "ztunnel.director")
                mesh.lab.signal(before, "KILL")
                until(
                    "another director has started from disk",
                    lambda node=node, before=before: running(mesh, node, "ztunnel.director") not in ([], [before]),
                )
                log = Path(mesh.lab.names.log(node, "ztunnel"))
                until("it says so", lambda log=log: "started from disk" in log.read_text(errors="replace"))
            until("everything is reached through it", lambda: all_reached(mesh))
    whole(mesh)
    assert all_reached(mesh)
