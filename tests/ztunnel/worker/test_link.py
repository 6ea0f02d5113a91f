"""The line to the director is found again whenever it breaks."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tests.support.tunnel import Director, run, until
from ztunnel.ipc import messages as m
from ztunnel.worker.link import Link


def test_it_is_up_when_there_is_a_director_and_refuses_when_there_is_none() -> None:
    async def scenario() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "d.sock"
            events: list[str] = []
            link = Link(
                asyncio.get_running_loop(),
                str(path),
                on_up=lambda: events.append("up"),
                on_message=lambda *_: None,
                on_down=lambda: events.append("down"),
            )
            link.connect()
            assert not link.send(m.Drained())
            for turn in range(1, 3):
                director = Director(path)
                await until(lambda turn=turn: events.count("up") == turn)  # type: ignore[misc]
                assert link.send(m.Drained())
                await until(lambda: bool(director.received))  # noqa: B023
                director.close()
                await until(lambda turn=turn: events.count("down") == turn)  # type: ignore[misc]
            link.close()
            assert events == ["up", "down"] * 2

    run(scenario)
