"""The conversation with the node agent over a real packet socket, with an agent made of ZDS's own core."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from ambient.zds import packet
from ambient.zds.codec import MAX_PACKET, AddWorkload, KeepWorkload, encode_request
from ambient.zds.session import AgentSession, NotServed, Removed, Served, SnapshotDone
from tests.support.waiting import eventually
from ztunnel.inpod.agent import RETRY_S, AgentLink

A, B = AddWorkload("uid-a", "a", "shop", "sa"), AddWorkload("uid-b", "b", "shop", "sa")


class Keeper:
    def __init__(self) -> None:
        self.pods: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self.snapshots = 0

    async def add(self, pod: AddWorkload, netns: int) -> str:
        os.close(netns)
        if pod.uid not in self.refused:
            self.pods[pod.uid] = netns
        return self.refused.get(pod.uid, "")

    def remove(self, uid: str) -> None:
        self.pods.pop(uid, None)
        self.refused.pop(uid, None)

    def snapshot_done(self) -> None:
        self.snapshots += 1

    async def retry(self) -> Iterable[str]:
        done = list(self.refused)
        self.refused.clear()
        return done

    def served(self) -> Iterable[str]:
        return [*self.pods, *self.refused]


class Bench:
    def __init__(self, folder: Path) -> None:
        self.keeper = Keeper()
        self.path = folder / "zds.sock"
        self.listener = packet.listen(self.path)
        self.retry_now = asyncio.Event()
        self.link = AgentLink(str(self.path), self.keeper, draw=lambda: 0.0, sleep=self._sleep)
        self.peer: packet.PacketSocket | None = None

    async def _sleep(self, seconds: float) -> None:
        if seconds == RETRY_S:
            await self.retry_now.wait()
            self.retry_now.clear()
        else:
            await asyncio.sleep(0)

    async def accept(self, *pods: AddWorkload | KeepWorkload) -> AgentSession:
        self.peer = await packet.accept(self.listener)
        session = AgentSession(pods)
        session.receive((await self.peer.receive(MAX_PACKET))[0], 0.0)
        return session

    async def all(self, session: AgentSession) -> list[object]:
        """Put every request there is; the events that come of them."""
        assert self.peer is not None
        events: list[object] = []
        while (request := session.next_request(0.0)) is not None:
            fds = [os.open("/dev/null", os.O_RDONLY)] if isinstance(request, AddWorkload) else []
            await self.peer.send(encode_request(request), fds)
            packet.close_all(fds)
            event = session.receive((await self.peer.receive(MAX_PACKET))[0], time.monotonic())
            events += [event] if event else []
        return events


def scenario(test: Callable[[Bench], Awaitable[None]]) -> Callable[[Path], None]:
    def run(tmp_path: Path) -> None:
        async def body() -> None:
            bench = Bench(tmp_path)
            running = asyncio.ensure_future(bench.link.run())
            try:
                await test(bench)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                bench.listener.close()
                if bench.peer is not None:
                    bench.peer.close()

        asyncio.run(body())

    run.__name__ = test.__name__
    return run


@scenario
async def test_the_snapshot_is_served_acknowledged_and_makes_it_ready(bench: Bench) -> None:
    session = await bench.accept(A, B)
    assert not bench.link.ready
    assert await bench.all(session) == [Served("uid-a"), Served("uid-b"), SnapshotDone()]
    assert bench.link.ready
    assert bench.keeper.snapshots == 1
    session.delete("uid-a")
    assert await bench.all(session) == [Removed("uid-a")]
    assert set(bench.keeper.pods) == {"uid-b"}


@scenario
async def test_a_lost_agent_leaves_every_pod_and_the_next_snapshot_is_reconciled(bench: Bench) -> None:
    await bench.all(await bench.accept(A, B))
    assert bench.peer is not None
    bench.peer.close()
    session = await bench.accept(B)
    assert not bench.link.ready
    assert set(bench.keeper.pods) == {"uid-a", "uid-b"}
    await bench.all(session)
    assert set(bench.keeper.pods) == {"uid-b"}


@scenario
async def test_a_kept_pod_survives_the_snapshot(bench: Bench) -> None:
    await bench.all(await bench.accept(A))
    assert bench.peer is not None
    bench.peer.close()
    await bench.all(await bench.accept(KeepWorkload("uid-a")))
    assert set(bench.keeper.pods) == {"uid-a"}


@scenario
async def test_a_pod_that_cannot_be_served_is_refused_retried_and_then_ready(bench: Bench) -> None:
    bench.keeper.refused["uid-a"] = "no room"
    session = await bench.accept(A)
    assert await bench.all(session) == [NotServed("uid-a", "no room"), SnapshotDone()]
    assert not bench.link.ready
    assert bench.keeper.snapshots == 1
    bench.retry_now.set()
    await eventually(lambda: bench.link.ready)


@scenario
async def test_a_refused_pod_that_is_deleted_is_let_go(bench: Bench) -> None:
    bench.keeper.refused["uid-a"] = "no room"
    session = await bench.accept(A)
    await bench.all(session)
    session.delete("uid-a")
    await bench.all(session)
    assert bench.keeper.refused == {}
    assert bench.link.ready


@scenario
async def test_a_request_without_names_is_refused(bench: Bench) -> None:
    session = await bench.accept(AddWorkload("uid-x"))
    (event, *_) = await bench.all(session)
    assert event == NotServed("uid-x", "the request has no workload info")


@scenario
async def test_an_agent_that_breaks_the_protocol_is_left_and_called_again(bench: Bench) -> None:
    await bench.accept(A)
    assert bench.peer is not None
    await bench.peer.send(b"\xff\xff what")
    assert await bench.peer.receive(MAX_PACKET) == (b"", [])
    bench.peer.close()
    assert SnapshotDone() in await bench.all(await bench.accept(A))
