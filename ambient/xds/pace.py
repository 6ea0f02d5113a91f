"""Long work in short steps (`ambient.xds.steps`) in an event loop that has other things to do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


async def between_others(steps: Generator[None, None, T], *, pause_s: float = 0.0) -> T:
    """Step by step, with everything else of the event loop (and `pause_s` of rest) in between."""
    try:
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            await asyncio.sleep(pause_s)
    finally:
        steps.close()


class WithoutCollection:
    """For making very many values that stay: no search for cycles meanwhile (it would look at all of them again and
    again, for longer than anybody should wait), and none among them ever after. They must not be in cycles."""

    def __enter__(self) -> None:
        gc.disable()

    def __exit__(self, *_error: object) -> None:
        gc.freeze()
        gc.enable()
