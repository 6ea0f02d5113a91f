"""The ring of flows and its followers."""

from __future__ import annotations

import asyncio
import json

from ambient.flows.record import from_json
from ztunnel.admin.flows import BEHIND, FlowRing
from ztunnel.ipc.messages import FlowRecord


def record(number: int) -> FlowRecord:
    return FlowRecord(
        event="closed", time_unix=float(number), node="n1", direction="inbound", source="10.0.0.1:1", destination="b:2"
    )


def test_the_newest_are_kept_in_order_and_readable_by_the_flow_reader() -> None:
    ring = FlowRing(kept=3)
    ring.add([record(n) for n in range(5)], lost=2)
    flows = [from_json(line, "ring") for line in ring.recent(10).decode().splitlines()]
    assert [flow.sequence for flow in flows] == [3, 4, 5]
    assert ring.recent(1).count(b"\n") == 1
    assert ring.recent(0) == b""
    assert ring.lost == 2


def test_a_follower_gets_what_was_and_what_comes() -> None:
    async def scenario() -> None:
        ring = FlowRing()
        ring.add([record(1)])
        stream = ring.follow(5)
        assert json.loads(await anext(stream))["sequence"] == 1
        following = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        ring.add([record(2), record(3)])
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
        ring.add(record(n) for n in range(BEHIND + 10))
        chunk = await anext(stream)
        assert chunk.count(b"\n") == BEHIND
        assert ring.lost == 10

    asyncio.run(scenario())
