"""An event is waited for, but not for ever."""

from __future__ import annotations

import asyncio

from ambient.waking import woken


def test_it_says_whether_the_event_came_or_the_time_was_over() -> None:
    async def scenario() -> None:
        event = asyncio.Event()
        assert not await woken(event, 0.001)
        asyncio.get_running_loop().call_soon(event.set)
        assert await woken(event, 30)
        assert event.is_set(), "whoever waits clears it"
        assert await woken(event, None)

    asyncio.run(scenario())
