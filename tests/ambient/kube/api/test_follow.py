"""One kind followed against a server that has bad days."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from ambient.kube.api.client import ApiClient
from ambient.kube.api.follow import SLICE_S, Follower
from ambient.kube.api.listwatch import Change, ListWatch, Pace
from ambient.kube.objects import resources
from tests.support.kube_api import Answer, FakeApi, status_body
from tests.support.waiting import eventually

PACE = Pace(first_s=0.005, longest_s=0.02, idle_s=20, start_idle_s=5, absent_s=0.01, short_s=0)
PODS = "/api/v1/pods"


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"containers": [{"name": "c"}]},
    }


class View:
    """What a reader of the changes knows, and what it was ever told to be gone."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.objects: dict[str, Mapping[str, Any]] = {}
        self.gone: list[str] = []

    def take(self, change: Change) -> None:
        name = change.key.rpartition("/")[2]
        if change.content is None:
            self.gone.append(name)
            del self.objects[name]
        else:
            self.objects[name] = change.content

    @property
    def names(self) -> list[str]:
        return sorted(self.objects)


def following(
    scenario: Callable[[FakeApi, View], Awaitable[None]], api: FakeApi | None = None, pace: Pace = PACE
) -> None:
    async def run() -> None:
        async with api or FakeApi() as server, ApiClient(server.access(), timeout_s=5) as client:
            view: View
            core = ListWatch("Pod", resources("Pod"), pace=pace, random=lambda: 0.5)
            view = View(Follower(client, core, lambda change: view.take(change), lambda: None))
            task = asyncio.create_task(view.follower.run())
            try:
                await scenario(server, view)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


async def listed(api: FakeApi, view: View, *names: str) -> None:
    for name in names:
        api.put(pod(name))
    await eventually(lambda: view.follower.core.synced and view.names == sorted(names) and api.watchers)


@pytest.mark.parametrize("streaming", [True, False])
def test_objects_come_change_and_go(streaming: bool) -> None:
    async def scenario(api: FakeApi, view: View) -> None:
        await listed(api, view, "a", "b", "c")
        api.put(pod("b", changed="yes"))
        api.delete("Pod", "a", "shop")
        await eventually(lambda: view.names == ["b", "c"])
        await eventually(lambda: view.objects["b"]["metadata"]["labels"] == {"changed": "yes"})
        assert view.follower.core.relists == 0

    following(scenario, FakeApi(streaming=streaming, page=2))


def test_a_broken_connection_is_resumed_without_a_new_list() -> None:
    async def scenario(api: FakeApi, view: View) -> None:
        await listed(api, view, "a")
        for name in ("b", "c"):
            api.break_watches()
            await eventually(lambda: not api.watchers)
            api.put(pod(name))
            await eventually(lambda name=name: name in view.objects)
        assert view.follower.core.relists == 0
        assert view.gone == []

    following(scenario)


def test_a_line_cut_in_the_middle_is_no_event() -> None:
    async def scenario(api: FakeApi, view: View) -> None:
        await listed(api, view, "a")
        api.send(
            b'{"type": "DELETED", "object": {"metadata": {"name": "a", "namespace": "shop", "resourceVersion": "9999"'
        )
        api.break_watches()
        await eventually(lambda: not api.watchers)
        await eventually(lambda: api.watchers)
        assert view.names == ["a"]
        assert view.gone == []

    following(scenario)


@pytest.mark.parametrize(
    "garbage", [b"nonsense\n", b"{}\n", b"[1]\n", b"\xff\xff\n", b'{"type": "ADDED", "object": 1}\n']
)
def test_garbage_in_a_watch_costs_the_connection_and_nothing_else(garbage: bytes) -> None:
    async def scenario(api: FakeApi, view: View) -> None:
        await listed(api, view, "a")
        api.send(garbage + b"\n")
        await eventually(lambda: len(api.asked("GET", PODS)) >= 2 and api.watchers)
        api.put(pod("b"))
        await eventually(lambda: view.names == ["a", "b"])
        assert view.gone == []

    following(scenario)


def test_410_in_the_middle_of_a_watch_never_shows_that_all_are_gone() -> None:
    async def scenario(api: FakeApi, view: View) -> None:
        await listed(api, view, "a", "b")
        api.forget_silently(pod("b"))
        api.compact()
        error = status_body(410, "Expired", "too old resource version")
        api.send(b'{"type": "ERROR", "object": ' + error + b"}\n")
        await eventually(lambda: view.names == ["a"])
        assert view.gone == ["b"]
        assert view.follower.core.relists == 1

    following(scenario)


def test_410_to_a_resumed_watch_leads_to_a_new_list() -> None:
    async def scenario(api: FakeApi, view: View) -> None:
        await listed(api, view, "a")
        port = await api.go_away()
        await eventually(lambda: not api.watchers)
        api.put(pod("b"))
        api.compact()
        await api.listen(port)
        await eventually(lambda: view.names == ["a", "b"])
        assert view.gone == []

    following(scenario)


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(500)] * 3,
        [Answer(429, headers={"Retry-After": "0"})] * 2,
        [Answer(403, status_body(403, "Forbidden", "no"))] * 2,
        [Answer(401)],
        [Answer(200, b"garbage")],
        [Answer(200, b'{"type": "ADDED"')],
        [Answer(200, b"")],
        [Answer(502, b"<html>"), Answer(410), Answer(500)],
    ],
)
@pytest.mark.parametrize("when", ["at the start", "after a compaction"])
def test_a_list_that_fails_is_asked_for_again_and_takes_nothing_away(answers: list[Answer], when: str) -> None:
    async def scenario(api: FakeApi, view: View) -> None:
        if when == "at the start":
            api.say(PODS, *answers)
            await listed(api, view, "a", "b")
        else:
            await listed(api, view, "a", "b")
            api.say(PODS, *answers)
            api.compact()
            api.end_watches()
            await eventually(lambda: api.watchers and len(api.asked("GET", PODS)) > len(answers) + 1)
            api.put(pod("c"))
            await eventually(lambda: view.names == ["a", "b", "c"])
        assert view.gone == []

    following(scenario)


def test_a_connection_that_says_nothing_any_more_is_left() -> None:
    async def scenario(api: FakeApi, view: View) -> None:
        await listed(api, view, "a")
        silent = api.watchers[0]
        await eventually(lambda: api.watchers and silent not in api.watchers)
        api.put(pod("b"))
        await eventually(lambda: view.names == ["a", "b"])

    following(scenario, pace=Pace(first_s=0.005, longest_s=0.02, idle_s=0.05, start_idle_s=5, short_s=0))


def test_a_kind_that_is_installed_later_is_found() -> None:
    async def scenario(api: FakeApi, view: View) -> None:
        api.put(pod("a"))
        await eventually(lambda: view.follower.core.absent)
        api.missing.clear()
        await eventually(lambda: view.names == ["a"])

    following(scenario, FakeApi(missing=("Pod",)))


def test_what_takes_long_to_read_leaves_the_event_loop_to_others() -> None:
    async def scenario(api: FakeApi, view: View) -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        seen: list[int] = []

        def slow(change: Change) -> None:
            began = time.perf_counter()
            while time.perf_counter() - began < 2 * SLICE_S:
                pass
            seen.append(turns)

        view.take = slow  # type: ignore[method-assign]
        for at in range(20):
            api.put(pod(f"p{at}"))
        task = asyncio.create_task(others())
        await eventually(lambda: view.follower.core.synced)
        task.cancel()
        # None of them was read in the same turn as the one before.
        assert len(set(seen)) == len(seen) == 20

    following(scenario)
