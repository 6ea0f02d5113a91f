"""How a machine comes by its membership; the rest of its life is tests/lab/test_join.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ambient.errors import InvalidInput
from ambient.join.machine import Machine
from ambient.join.run import admitted
from tests.support.machine import member


def test_a_member_goes_on_without_a_ticket(tmp_path: Path) -> None:
    machine = Machine("ledger", tmp_path / "netns", tmp_path / "run", tmp_path)
    member().save(machine.state)
    assert asyncio.run(admitted(machine, None, "")) == member()


def test_who_is_no_member_needs_a_ticket(tmp_path: Path) -> None:
    machine = Machine("ledger", tmp_path / "netns", tmp_path / "run", tmp_path)
    with pytest.raises(InvalidInput, match="give it a ticket"):
        asyncio.run(admitted(machine, None, ""))
