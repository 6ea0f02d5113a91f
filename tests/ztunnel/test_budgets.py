"""Budgets of a pod as the environment sets them."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ztunnel.budgets import PER_WORKER, Budgets
from ztunnel.config import read_config


def test_the_defaults_leave_room_for_others_and_grow_with_the_workers() -> None:
    budgets = read_config({"ZTUNNEL_WORKER_THREADS": "4"}).budgets
    assert budgets.connections_per_second == 4 * PER_WORKER
    assert budgets.open_connections == 20_000
    assert budgets.handshakes == 128
    assert budgets.waiting == 64 << 20


def test_each_can_be_set_and_taken_away() -> None:
    names = ("CONNECTIONS_PER_SECOND", "OPEN_CONNECTIONS", "HANDSHAKES", "WAITING_BYTES")
    assert read_config({f"AMBIENT_POD_{name}": "0" for name in names}).budgets == Budgets()
    env = {f"AMBIENT_POD_{name}": str(7 + at) for at, name in enumerate(names)}
    assert read_config(env).budgets == Budgets(connections_per_second=7, open_connections=8, handshakes=9, waiting=10)
    assert read_config({"AMBIENT_POD_WAITING_BYTES": "16Mi"}).budgets.waiting == 16 << 20


@pytest.mark.parametrize("name", ["CONNECTIONS_PER_SECOND", "OPEN_CONNECTIONS", "HANDSHAKES", "WAITING_BYTES"])
@pytest.mark.parametrize("value", ["-1", "many", "1e99"])
def test_nonsense_stops_the_start_by_name(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=f"AMBIENT_POD_{name}"):
        read_config({f"AMBIENT_POD_{name}": value})
