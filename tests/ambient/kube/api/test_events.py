"""Events: said once, in the right namespace, never in floods, and never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ambient.kube.api import events
from ambient.kube.api.client import ApiClient
from ambient.kube.api.events import EventWriter, Regarding
from tests.support.kube_api import Answer, FakeApi
from tests.support.waiting import eventually

NODE = Regarding("v1", "Node", "n1")
POD = Regarding("v1", "Pod", "web", "shop", "uid-1")


class World:
    def __init__(self, server: FakeApi, writer: EventWriter) -> None:
        self.server, self.writer, self.now = server, writer, 0.0

    @property
    def written(self) -> list[dict[str, Any]]:
        return list(self.server._objects.get(self.server.collection("Event"), {}).values())


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with FakeApi() as server, ApiClient(server.access()) as api:
        here = World(server, EventWriter(api, "ambient-control", "pod-1", pause_s=0.0, clock=lambda: here.now))
        running = asyncio.create_task(here.writer.run())
        yield here
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_an_event_is_about_an_object_and_lies_where_people_look() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.writer.say(POD, "NotServed", "x" * 2000, "Enrol")
            here.writer.say(NODE, "IdentityRefused", "why", "Issue", "Normal")
            await eventually(lambda: len(here.written) == 2)
            about = {one["regarding"]["kind"]: one for one in here.written}
            assert about["Pod"]["metadata"]["namespace"] == "shop"
            assert about["Pod"]["regarding"]["uid"] == "uid-1"
            assert len(about["Pod"]["note"]) == events.LONGEST_NOTE
            assert about["Node"]["metadata"]["namespace"] == "default"
            assert (about["Node"]["reason"], about["Node"]["type"]) == ("IdentityRefused", "Normal")

    asyncio.run(scenario())


def test_what_is_said_again_soon_is_not_written_again() -> None:
    async def scenario() -> None:
        async with world() as here:
            for _ in range(3):
                here.writer.say(NODE, "A", "b", "C")
            await eventually(lambda: len(here.written) == 1)
            here.now += 600
            here.writer.say(NODE, "A", "b", "C")
            await eventually(lambda: len(here.written) == 2)

    asyncio.run(scenario())


def test_a_flood_is_cut_and_counted() -> None:
    async def scenario() -> None:
        async with FakeApi() as server, ApiClient(server.access()) as api:
            writer = EventWriter(api, "ambient-control", "pod-1")
            for number in range(events.MOST_WAITING + 50):
                writer.say(NODE, "A", str(number), "C")
            assert writer.left_out == 50

    asyncio.run(scenario())


def test_one_that_cannot_be_written_keeps_no_other_waiting() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.server.say("/apis/events.k8s.io/v1/namespaces/default/events", Answer(500))
            here.writer.say(NODE, "A", "lost", "C")
            here.writer.say(NODE, "A", "kept", "C")
            await eventually(lambda: [one["note"] for one in here.written] == ["kept"])

    asyncio.run(scenario())
