"""Our ztunnel is driven by an agent that is not ours, octet by octet."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from ambient.zds.codec import AddWorkload
from tests.support import zds_foreign as foreign
from tests.support.director_world import World
from tests.support.fake_worker import own_netns
from tests.support.waiting import eventually
from tests.support.zds_foreign import IstioAgent, Told
from ztunnel.director.director import Director
from ztunnel.inpod import agent as inpod
from ztunnel.inpod.agent import AgentLink

WEB = AddWorkload("4f7c2c1e-0a0b-4c0d-8e0f-101112131415", "web-7d9c8b6f5-x2x4z", "shop", "seller")
DB = AddWorkload("6a5b4c3d-0a0b-4c0d-8e0f-101112131415", "db-0", "shop", "keeper")
IN = asyncio.to_thread


@contextlib.asynccontextmanager
async def our_ztunnel(folder: Path, *, slot: int = 0) -> AsyncIterator[tuple[World, AgentLink, Director]]:
    world = World(folder / f"z{slot}")
    async with world.director() as director:
        world.worker(slot, 1000 + slot)
        await eventually(lambda: len(director.crew.everyone()) == 1)
        link = AgentLink(str(folder / "ztunnel.sock"), director)
        running = asyncio.ensure_future(link.run())
        try:
            yield world, link, director
        finally:
            running.cancel()
            await asyncio.wait({running})
            for worker in world.workers:
                worker.die()


@contextlib.asynccontextmanager
async def their_agent(folder: Path) -> AsyncIterator[IstioAgent]:
    (folder / "z0").mkdir(parents=True, exist_ok=True)
    (folder / "z1").mkdir(parents=True, exist_ok=True)
    agent = IstioAgent(folder / "ztunnel.sock")
    try:
        yield agent
    finally:
        agent.close()


Scene = Callable[[IstioAgent, int, Path], Awaitable[None]]


def played(scene: Scene) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def body() -> None:
            netns = own_netns()
            try:
                async with their_agent(tmp_path) as agent:
                    await scene(agent, netns, tmp_path)
            finally:
                os.close(netns)

        asyncio.run(body())

    run.__name__, run.__doc__ = scene.__name__, scene.__doc__
    return run


@played
async def test_our_ztunnel_acknowledges_each_request_once_and_is_ready_after_the_snapshot(
    agent: IstioAgent, netns: int, folder: Path
) -> None:
    async with our_ztunnel(folder) as (_, link, director):
        told = await IN(agent.accept)
        assert await IN(told.serve, WEB.uid, netns) == ""
        assert await IN(told.ask, foreign.keep("not-known-here")) == ""
        assert not link.ready
        assert await IN(told.ask, foreign.SNAPSHOT_SENT) == ""
        await eventually(lambda: link.ready)
        assert await IN(told.serve, DB.uid, netns, "db-0") == ""
        assert await IN(told.serve, DB.uid, netns, "db-0") == ""
        assert {pod.uid for pod in director.pods.infos()} == {WEB.uid, DB.uid}
        assert await IN(told.ask, foreign.delete(WEB.uid)) == ""
        assert await IN(told.ask, foreign.delete("never-heard-of")) == ""
        assert {pod.uid for pod in director.pods.infos()} == {DB.uid}
        told.close()


@played
async def test_a_reconnected_agent_finds_pods_served_and_its_snapshot_is_reconciled(
    agent: IstioAgent, netns: int, folder: Path
) -> None:
    async with our_ztunnel(folder) as (world, link, director):
        told = await IN(agent.accept)
        for uid in (WEB.uid, DB.uid, "kept"):
            assert await IN(told.serve, uid, netns, uid) == ""
        await IN(told.ask, foreign.SNAPSHOT_SENT)
        told.close()
        await eventually(lambda: not link.ready)
        assert len(director.pods.infos()) == 3
        told = await IN(agent.accept)
        assert await IN(told.serve, WEB.uid, netns, WEB.uid) == ""
        assert await IN(told.ask, foreign.keep("kept")) == ""
        assert await IN(told.ask, foreign.delete(WEB.uid)) == ""
        assert await IN(told.ask, foreign.SNAPSHOT_SENT) == ""
        assert {pod.uid for pod in director.pods.infos()} == {"kept"}
        await eventually(lambda: world.workers[0].pods.keys() <= {WEB.uid, DB.uid, "kept"})
        told.close()


@played
async def test_a_pod_that_cannot_be_served_is_refused_kept_pending_and_served_later(
    agent: IstioAgent, netns: int, folder: Path
) -> None:
    async with our_ztunnel(folder) as (world, link, director):
        world.workers[0].error = "cannot listen"
        told = await IN(agent.accept)
        assert "cannot listen" in await IN(told.serve, WEB.uid, netns)
        assert await IN(told.ask, foreign.SNAPSHOT_SENT) == ""
        assert not link.ready
        assert director.pods.pending() == [WEB.uid]
        world.workers[0].error = ""
        assert await IN(told.serve, WEB.uid, netns) == ""
        await eventually(lambda: link.ready)
        told.close()


@played
async def test_a_known_uid_may_come_again_and_what_is_no_namespace_changes_nothing(
    agent: IstioAgent, netns: int, folder: Path
) -> None:
    async with our_ztunnel(folder) as (_, _link, director):
        told = await IN(agent.accept)
        assert await IN(told.serve, WEB.uid, netns) == ""
        assert await IN(told.serve, WEB.uid, netns, "web-again") == ""
        assert [pod.name for pod in director.pods.infos()] == ["web-again"]
        nothing = os.open("/dev/null", os.O_RDONLY)
        assert "namespace" in await IN(told.serve, WEB.uid, nothing)
        os.close(nothing)
        assert director.pods.up(WEB.uid)
        told.close()


def _late_keep(told: Told, _netns: int) -> bool:
    assert told.ask(foreign.SNAPSHOT_SENT) == ""
    return told.hung_up(foreign.keep("x"))


def _second_snapshot(told: Told, _netns: int) -> bool:
    assert told.ask(foreign.SNAPSHOT_SENT) == ""
    return told.hung_up(foreign.SNAPSHOT_SENT)


def _add_without_descriptor(told: Told, _netns: int) -> bool:
    return told.hung_up(foreign.add("u", "n", "ns", "sa"))


def _add_with_two(told: Told, netns: int) -> bool:
    return told.hung_up(foreign.add("u", "n", "ns", "sa"), netns, netns)


def _delete_with_descriptor(told: Told, netns: int) -> bool:
    return told.hung_up(foreign.delete("u"), netns)


def _no_request(told: Told, _netns: int) -> bool:
    return told.hung_up(b"\x22\x00")


def _too_long(told: Told, netns: int) -> bool:
    return told.hung_up(foreign.add("u", "n" * 1100, "ns", "sa"), netns)


@pytest.mark.parametrize(
    "breach",
    [
        _late_keep,
        _second_snapshot,
        _add_without_descriptor,
        _add_with_two,
        _delete_with_descriptor,
        _no_request,
        _too_long,
    ],
)
def test_a_breach_of_the_protocol_ends_the_connection_and_the_next_one_is_good(
    breach: Callable[[Told, int], bool], tmp_path: Path
) -> None:
    @played
    async def scene(agent: IstioAgent, netns: int, folder: Path) -> None:
        async with our_ztunnel(folder) as (_, link, _director):
            told = await IN(agent.accept)
            before = len(os.listdir("/proc/self/fd"))
            assert await IN(breach, told, netns)
            told.close()
            told = await IN(agent.accept)
            await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
            assert await IN(told.serve, WEB.uid, netns) == ""
            assert await IN(told.ask, foreign.SNAPSHOT_SENT) == ""
            await eventually(lambda: link.ready)
            told.close()

    scene(tmp_path)


@played
async def test_two_ztunnels_at_once_the_old_one_drains_while_the_new_one_takes_over(
    agent: IstioAgent, netns: int, folder: Path
) -> None:
    async with our_ztunnel(folder, slot=0) as (_, old_link, old):
        told_old = await IN(agent.accept)
        assert await IN(told_old.serve, WEB.uid, netns) == ""
        assert await IN(told_old.ask, foreign.SNAPSHOT_SENT) == ""
        async with our_ztunnel(folder, slot=1) as (_, new_link, new):
            told_new = await IN(agent.accept)
            assert await IN(told_new.serve, WEB.uid, netns) == ""
            assert await IN(told_new.ask, foreign.SNAPSHOT_SENT) == ""
            await eventually(lambda: old_link.ready and new_link.ready)
            old_link.retire()
            for told in (told_old, told_new):
                assert await IN(told.ask, foreign.delete(WEB.uid)) == ""
            assert not old.pods.infos()
            assert not new.pods.infos()
            told_old.close()
            await eventually(lambda: not old_link.ready)
            assert await IN(told_new.serve, DB.uid, netns, "db-0") == ""
            assert new_link.ready
            told_new.close()


def test_the_pauses_before_calling_again_double_up_to_their_limit(tmp_path: Path) -> None:
    pauses: list[float] = []

    async def scenario() -> None:
        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 10:
                raise asyncio.CancelledError
            await asyncio.sleep(0)

        world = World(tmp_path)
        async with world.director() as director:
            link = AgentLink(str(tmp_path / "nobody.sock"), director, draw=lambda: 1.0, sleep=sleep)
            with contextlib.suppress(asyncio.CancelledError):
                await link.run()

    asyncio.run(scenario())
    assert pauses[:4] == [0.01, 0.02, 0.04, 0.08]
    assert pauses[-1] == inpod.LONGEST_PAUSE_S
