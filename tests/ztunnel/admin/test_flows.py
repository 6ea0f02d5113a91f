"""The ring of flows and its followers."""

from __future__ import annotations

import asyncio
import json

from ambient.flows.record import from_json
from tests.support.flow_records import packed
from ztunnel.admin.flows import BEHIND, FlowRing
from ztunnel.ipc.flows import FlowRecord


def record(number: int) -> FlowRecord:
    return FlowRecord(
        event="closed", time_unix=float(number), node="n1", direction="inbound", source="10.0.0.1:1", destination="b:2"
    )


def add(ring: FlowRing, *numbers: int, lost: int = 0) -> None:
    ring.add(packed([record(number) for number in numbers]), len(numbers), lost)


def test_the_newest_are_kept_in_order_and_readable_by_the_flow_reader() -> None:
    ring = FlowRing(kept=3)
    add(ring, *range(5), lost=2)
    flows = [from_json(line, "ring") for line in ring.recent(10).decode().splitlines()]
    assert [flow.sequence for flow in flows] == [3, 4, 5]
    assert ring.recent(1).count(b"\n") == 1
    assert ring.recent(0) == b""
    assert ring.lost == 2


def test_a_follower_gets_what_was_and_what_comes() -> None:
    async def scenario() -> None:
        ring = FlowRing()
        add(ring, 1)
        stream = ring.follow(5)
        assert json.loads(await anext(stream))["sequence"] == 1
        following = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        add(ring, 2, 3)
        lines = (await following).splitlines()
        assert [json.loads(line)["sequence"] for line in lines] == [2, 3]
        await stream.aclose()  # type: ignore[attr-defined]
        assert not ring.crowded

    asyncio.run(scenario())


def test_a_follower_that_does_not_read_loses_the_oldest_and_memory_stays_bounded() -> None:
    async def scenario() -> None:
        ring = FlowRing()
        stream = ring.follow()
        await anext(stream)
        add(ring, *range(BEHIND + 10))
        chunk = await anext(stream)
        assert chunk.count(b"\n") == BEHIND
        assert ring.lost == 10

    asyncio.run(scenario())


def test_several_reports_are_one_sequence_and_the_oldest_leave_whole() -> None:
    ring = FlowRing(kept=4)
    for numbers in ((1, 2), (3,), (4, 5, 6)):
        add(ring, *numbers)
    assert [json.loads(line)["sequence"] for line in ring.recent(10).splitlines()] == [3, 4, 5, 6]
    assert [json.loads(line)["time_unix"] for line in ring.recent(2).splitlines()] == [5.0, 6.0]


def test_a_report_that_cannot_be_read_is_skipped() -> None:
    ring = FlowRing()
    add(ring, 1)
    ring.add(b"nonsense", 1)
    add(ring, 3)
    assert [json.loads(line)["sequence"] for line in ring.recent(10).splitlines()] == [1, 3]
