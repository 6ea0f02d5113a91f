"""Waiting for something that another process or task does: by looking again, never longer than needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 100.0
_PAUSE_S = 0.003


def until(
    condition: Callable[[], object], what: str = "", *, patience_s: float = PATIENCE_S, pause_s: float = _PAUSE_S
) -> None:
    """Return when `condition()` is true; AssertionError after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited too long {what}"
        time.sleep(pause_s)


async def eventually(condition: Callable[[], object], what: str = "") -> None:
    """The same while the event loop runs."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited too long {what}"
        await asyncio.sleep(_PAUSE_S)
