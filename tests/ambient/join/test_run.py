"""How a machine comes by its membership; the rest of its life is tests/lab/test_join.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ambient.errors import InvalidInput
from ambient.join.machine import Machine
from ambient.join.run import Running, admitted
from tests.support.machine import member


def test_a_member_goes_on_without_a_ticket(tmp_path: Path) -> None:
    machine = Machine("ledger", tmp_path / "netns", tmp_path / "run", tmp_path)
    member().save(machine.state)
    assert asyncio.run(admitted(machine, None, "")) == member()


def test_who_is_no_member_needs_a_ticket(tmp_path: Path) -> None:
    machine = Machine("ledger", tmp_path / "netns", tmp_path / "run", tmp_path)
    with pytest.raises(InvalidInput, match="give it a ticket"):
        asyncio.run(admitted(machine, None, ""))


def test_what_came_and_went_again_is_no_news_and_does_not_stop_everything_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        machine = Machine("ledger", tmp_path / "netns", tmp_path / "run", tmp_path)
        running = Running(machine, member(), commands=False)
        told = (running._health.why, machine.captured(member()))
        running._news.set()
        await running._until_news(told, 0.05)
        assert (running._health.why, machine.captured(member())) == told

    asyncio.run(scenario())
