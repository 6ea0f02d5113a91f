"""Waiting for something that another process or task does: by looking again, never longer than needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 20.0
_PAUSE_S = 0.003


def until(condition: Callable[[], object], what: str = "") -> None:
    """Return when `condition()` is true; AssertionError after 20 s."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited too long {what}"
        time.sleep(_PAUSE_S)


async def eventually(condition: Callable[[], object], what: str = "") -> None:
    """The same while the event loop runs."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited too long {what}"
        await asyncio.sleep(_PAUSE_S)
