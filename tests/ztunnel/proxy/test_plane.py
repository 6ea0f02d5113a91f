"""What all connections share: one flush per turn, ticks, and crashes that are told."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from tests.support.tunnel import run, until, world


class Odd:
    """Stands for a tunnel with a bug."""

    def __init__(self) -> None:
        self.flushed = 0
        self.failed = 0

    def flush(self) -> None:
        self.flushed += 1
        raise RuntimeError("bug")

    tick = flush

    def fail(self, error: object) -> None:
        self.failed += 1

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.flush()


def test_a_tunnel_that_crashes_in_its_flush_or_tick_is_ended_and_the_others_go_on() -> None:
    async def scenario() -> None:
        async with world() as here:
            plane = here.workers[0].plane
            first, second = Odd(), Odd()
            plane.flush_soon(cast("Any", first))
            plane.flush_soon(cast("Any", second))
            await until(lambda: second.flushed == 1)
            assert (first.failed, second.failed) == (1, 1)
            plane.tunnels.add(cast("Any", first))
            plane.tick()
            plane.tunnels.discard(cast("Any", first))
            assert first.failed == 2
            here.crashes = 3
            await asyncio.sleep(0)

    run(scenario)
