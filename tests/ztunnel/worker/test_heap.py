"""What a busy time took of the heap goes back to the node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tunnel import run, until, world
from ztunnel.worker import heap

MANY, SIZE = 40_000, 1_000


def resident_kb() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


def test_free_pages_in_the_middle_of_the_heap_are_given_back() -> None:
    taken = [bytearray(SIZE) for _ in range(MANY)]
    last = taken.pop()  # it keeps what lies before it from being given back by itself
    full = resident_kb()
    taken.clear()
    heap.give_back()
    assert resident_kb() < full - MANY * SIZE // 2_048
    assert len(last) == SIZE


def test_a_worker_gives_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[None] = []
    monkeypatch.setattr(heap, "give_back", lambda: times.append(None))

    async def scenario() -> None:
        async with world() as here:
            worker = here.workers[0]
            worker._tick()
            assert not times
            worker._give_back_at = 0.0
            await until(lambda: bool(times))
            worker._tick()
            assert len(times) == 1

    run(scenario)
