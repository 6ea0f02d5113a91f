"""The subscription shell: patience between attempts, files read anew, and consumers that count before answers."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from ambient.xds.client import Batch, DeltaClient
from ambient.xds.codec import ADDRESS_TYPE
from ambient.xds.messages import ztunnel_node
from ambient.xds.subscribe import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    RESTART_S,
    SHORT_PAUSE_S,
    Backoff,
    StreamState,
    subscribe,
)
from tests.support.control import ControlBench, Subscriber, until
from tests.support.discovery import simple_workload


def test_pauses_double_stay_short_while_a_restart_may_be_under_way_and_are_spread() -> None:
    backoff = Backoff(random.Random(1))
    waited, ceiling, seen = 0.0, FIRST_PAUSE_S, set()
    for _ in range(200):
        pause = backoff.pause()
        assert ceiling / 2 <= pause <= ceiling
        seen.add(ceiling)
        ceiling = min(ceiling * 2, SHORT_PAUSE_S if waited < RESTART_S else LONGEST_PAUSE_S)
        waited += pause
    assert {FIRST_PAUSE_S, SHORT_PAUSE_S, LONGEST_PAUSE_S} <= seen
    backoff.reset()
    assert backoff.pause() <= FIRST_PAUSE_S
    for _ in range(60):
        assert backoff.pause() <= SHORT_PAUSE_S
    assert Backoff(random.Random(2)).pause() != Backoff(random.Random(3)).pause()


def test_states_tell_the_story(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = ControlBench(tmp_path)
        async with bench:
            settings = bench.client()
            ztunnel = Subscriber(settings)
            await ztunnel.__aenter__()
            await ztunnel.synced()
        await until(lambda: sum(state.state == "disconnected" for state in ztunnel.states) >= 3)
        await ztunnel.__aexit__(None, None, None)
        story = [state.state for state in ztunnel.states]
        assert story[:4] == ["connecting", "connected", "synced", "disconnected"]
        assert "no connection" in ztunnel.states[-1].why or "no connection" in ztunnel.states[-2].why

    asyncio.run(scenario())


def test_an_answer_means_acted_upon(tmp_path: Path) -> None:
    async def scenario() -> None:
        acted = asyncio.Event()

        async def slowly(batch: Batch) -> None:
            if batch.put:
                await acted.wait()

        async with ControlBench(tmp_path) as bench:
            bench.plane.catalogue.update([simple_workload("a")], 7)
            states: list[StreamState] = []
            task = asyncio.create_task(subscribe(bench.client(), ztunnel_node("n1"), slowly, states.append))
            await until(lambda: "n1/ztunnel" in bench.plane.discovery.clients)
            client = bench.plane.discovery.clients["n1/ztunnel"]
            await until(lambda: ADDRESS_TYPE in client.sent)
            assert client.stream.acked < 7
            acted.set()
            await until(lambda: client.stream.acked == 7)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_a_consumer_that_fails_ends_the_subscription_with_its_own_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        def broken(batch: Batch) -> None:
            raise KeyError("bug")

        async with ControlBench(tmp_path) as bench:
            with pytest.raises(KeyError, match="bug"):
                await subscribe(bench.client(), ztunnel_node("n1"), broken, lambda state: None)

    asyncio.run(scenario())


def test_a_repaired_token_is_used_at_the_next_attempt(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            settings = bench.client(token="rubbish")
            assert settings.token is not None
            async with Subscriber(settings) as ztunnel:
                await until(lambda: any("UNAUTHENTICATED" in state.why for state in ztunnel.states))
                settings.token.write_text(bench.token())
                await ztunnel.synced()

    asyncio.run(scenario())


def test_a_missing_root_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            settings = bench.client()
            root = settings.root.read_text()
            settings.root.unlink()
            async with Subscriber(settings) as ztunnel:
                await until(lambda: any("root certificate" in state.why for state in ztunnel.states))
                settings.root.write_text(root)
                await ztunnel.synced()

    asyncio.run(scenario())


def test_thousands_of_workloads_arrive_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.plane.catalogue.update([simple_workload(f"w{i}") for i in range(5000)], 1)
            async with Subscriber(bench.client()) as ztunnel:
                await ztunnel.synced()
                assert len(ztunnel.view) == 5000

    asyncio.run(scenario())


def test_a_replaced_root_ends_the_stream_and_the_next_is_opened_with_the_new_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.plane.catalogue.update([simple_workload("a")], 1)
            async with Subscriber(bench.client()) as ztunnel:
                await ztunnel.synced()
                root = bench.ca / "root-cert.pem"
                root.write_text(root.read_text() + "# both roots\n")
                await until(lambda: any("root certificate was replaced" in state.why for state in ztunnel.states))
                assert next(state.reason for state in ztunnel.states if state.why) == "Complete"
                await until(lambda: sum(state.state == "synced" for state in ztunnel.states) == 2)

    asyncio.run(scenario())


def test_why_a_stream_ended_is_told_in_istios_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = ControlBench(tmp_path)
        async with bench:
            settings = bench.client()
            async with Subscriber(bench.client(node="n2", token="rubbish")) as refused:
                await until(lambda: any(state.reason == "Error" for state in refused.states))
            ztunnel = Subscriber(settings)
            await ztunnel.__aenter__()
            await ztunnel.synced()
        await until(lambda: any(state.reason == "ConnectionError" for state in ztunnel.states))
        await ztunnel.__aexit__(None, None, None)
        ends = [state.reason for state in ztunnel.states if state.state == "disconnected"]
        assert ends[0] in ("Complete", "Reconnect")

    asyncio.run(scenario())


def test_the_good_part_of_a_refused_response_is_applied_when_nothing_better_comes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            catalogue = bench.plane.catalogue
            catalogue.update([simple_workload("a"), simple_workload("b")], 1)
            shelf = catalogue._shelves[ADDRESS_TYPE]
            name = simple_workload("b").uid
            shelf.resources[name] = replace(shelf.resources[name], body=b"\xff", version="bad")
            core = DeltaClient(ztunnel_node("n1"))
            sizes: list[int] = []
            async with Subscriber(
                bench.client(), core=core, hold_s=0.01, on_message=lambda _url, size: sizes.append(size)
            ) as ztunnel:
                await ztunnel.synced()
                await until(lambda: simple_workload("a").uid in ztunnel.view)
                assert ztunnel.view[name].refused  # type: ignore[union-attr]
                assert all(sizes)

    asyncio.run(scenario())


def test_what_is_asked_for_in_the_middle_of_a_stream_is_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            far = simple_workload("far", node="n2")
            bench.plane.catalogue.update([simple_workload("here"), far], 1)
            core = DeltaClient(ztunnel_node("n1"), on_demand=True)
            async with Subscriber(bench.client(), core=core) as ztunnel:
                await ztunnel.synced()
                await until(lambda: set(ztunnel.view) == {simple_workload("here").uid})
                core.want([far.uid, "ns/nowhere"])
                await until(lambda: core.decided(far.uid) and core.decided("ns/nowhere"))
                assert ztunnel.view[far.uid] == far

    asyncio.run(scenario())


def test_a_response_larger_than_grpcs_usual_limit_is_taken(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            name = "x" * 1_000_000
            bench.plane.catalogue.update([simple_workload(f"w{i}", workload_name=name) for i in range(6)], 1)
            async with Subscriber(bench.client()) as ztunnel:
                await ztunnel.synced()
                assert len(ztunnel.view) == 6

    asyncio.run(scenario())
