"""Waiting for an event, but not for ever: how the loops here wake that look again by themselves."""

from __future__ import annotations

import asyncio


async def woken(event: asyncio.Event, at_most_s: float | None) -> bool:
    """Whether `event` was set before the time was over (None: there is none). Does not clear it."""
    try:
        async with asyncio.timeout(at_most_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
