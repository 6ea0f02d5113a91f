"""Long work lets others run between its steps, and leaves nothing for the garbage collector to walk through."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Generator

import pytest

from ambient.xds.pace import WithoutCollection, between_others


def test_others_run_between_the_steps_and_the_result_is_given() -> None:
    async def scenario() -> None:
        seen: list[str] = []

        def work() -> Generator[None, None, int]:
            for number in range(3):
                seen.append(f"step {number}")
                yield
            return 7

        async def other() -> None:
            for _ in range(3):
                seen.append("other")
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        assert await between_others(work()) == 7
        await beside
        assert seen == ["step 0", "other", "step 1", "other", "step 2", "other"]

    asyncio.run(scenario())


def test_whoever_gives_up_closes_the_work() -> None:
    async def scenario() -> None:
        closed = False

        def work() -> Generator[None, None, None]:
            nonlocal closed
            try:
                while True:
                    yield
            finally:
                closed = True

        task = asyncio.create_task(between_others(work()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed

    asyncio.run(scenario())


def test_what_was_made_without_collection_is_never_walked_through() -> None:
    try:
        with WithoutCollection():
            assert not gc.isenabled()
            kept = [[number] for number in range(100)]
        assert gc.isenabled()
        assert not any(one is kept[0] for one in gc.get_objects())
    finally:
        gc.unfreeze()
