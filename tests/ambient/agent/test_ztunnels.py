"""The agent's side of ZDS against real sockets: adds to the newest, deletes to all, strangers refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ambient.agent.ztunnels import Ztunnels
from ambient.zds import packet
from ambient.zds.codec import (
    MAX_PACKET,
    Ack,
    AddWorkload,
    DelWorkload,
    Hello,
    KeepWorkload,
    Request,
    SnapshotSent,
    decode_request,
    encode_ack,
    encode_hello,
)
from tests.support.agent_fakes import until

WEB = AddWorkload("u1", "web", "shop", "seller")
DB = AddWorkload("u2", "db", "shop", "keeper")


class Client:
    """ztunnel's end, by hand."""

    def __init__(self, sock: packet.PacketSocket) -> None:
        self.sock = sock
        self.inodes: list[int] = []

    async def next(self) -> Request:
        async with asyncio.timeout(5):
            data, fds = await self.sock.receive(MAX_PACKET, 1)
        assert data, "the agent closed the connection"
        for fd in fds:
            self.inodes.append(os.fstat(fd).st_ino)
            os.close(fd)
        return decode_request(data)

    async def ack(self, error: str = "") -> None:
        await self.sock.send(encode_ack(Ack(error)))

    async def takes(self, *expected: Request) -> None:
        for request in expected:
            assert await self.next() == request
            await self.ack()


class Agent:
    def __init__(self, directory: Path) -> None:
        self.path = directory / "zds.sock"
        self.came: list[int] = []
        self.went: list[int] = []
        self.ztunnels = Ztunnels(self._came, lambda peer: self.went.append(peer.pid))
        self.entered = asyncio.Event()
        self.entered.set()
        self.netns = os.open("/dev/null", os.O_RDONLY)
        self.stack = contextlib.ExitStack()

    async def _came(self, peer: packet.Peer) -> None:
        self.came.append(peer.pid)
        await self.entered.wait()

    async def connect(self) -> packet.PacketSocket:
        await until(self.path.exists)
        sock = packet.connect(self.path)
        self.stack.callback(sock.close)
        return sock

    async def client(self) -> Client:
        sock = await self.connect()
        before = len(self.came)
        await sock.send(encode_hello(Hello()))
        await until(lambda: len(self.came) > before)
        return Client(sock)


@contextlib.asynccontextmanager
async def agent(directory: Path) -> AsyncIterator[Agent]:
    made = Agent(directory)
    serving = asyncio.create_task(made.ztunnels.serve(made.path))
    try:
        yield made
    finally:
        serving.cancel()
        await asyncio.wait({serving})
        made.stack.close()
        os.close(made.netns)


def test_a_ztunnel_gets_every_pod_with_its_namespace_then_the_end_of_the_snapshot(tmp_path: Path) -> None:
    async def body() -> None:
        async with agent(tmp_path) as node:
            node.ztunnels.add(WEB, node.netns)
            node.ztunnels.keep("u9")
            client = await node.client()
            await client.takes(WEB, KeepWorkload("u9"), SnapshotSent())
            assert client.inodes == [os.fstat(node.netns).st_ino]
            async with asyncio.timeout(5):
                await node.ztunnels.served("u1")
            assert node.ztunnels.pending == {"u9": ""}

    asyncio.run(body())


def test_a_ztunnel_is_told_nothing_before_it_is_entered_and_others_are_served_meanwhile(tmp_path: Path) -> None:
    async def body() -> None:
        async with agent(tmp_path) as node:
            first = await node.client()
            await first.takes(SnapshotSent())
            node.entered.clear()
            second = await node.client()
            told = asyncio.create_task(second.next())
            removal = asyncio.create_task(node.ztunnels.remove("u7"))
            await first.takes(DelWorkload("u7"))
            assert not told.done()
            node.entered.set()
            assert await told == SnapshotSent()
            await second.ack()
            await second.takes(DelWorkload("u7"))
            await removal

    asyncio.run(body())


def test_the_next_request_waits_for_the_ack_of_the_last(tmp_path: Path) -> None:
    async def body() -> None:
        async with agent(tmp_path) as node:
            node.ztunnels.add(WEB, node.netns)
            client = await node.client()
            assert await client.next() == WEB
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.sock.receive(MAX_PACKET, 1)
            await client.ack()
            assert await client.next() == SnapshotSent()

    asyncio.run(body())


def test_a_pod_that_ztunnel_refuses_is_offered_again_until_it_serves_it(tmp_path: Path) -> None:
    async def body() -> None:
        async with agent(tmp_path) as node:
            client = await node.client()
            await client.takes(SnapshotSent())
            node.ztunnels.add(WEB, node.netns)
            for _ in range(3):
                assert await client.next() == WEB
                await client.ack("no address")
            await until(lambda: node.ztunnels.pending == {"u1": "no address"})
            assert not node.ztunnels.settled
            await client.takes(WEB)
            async with asyncio.timeout(5):
                await node.ztunnels.served("u1")
            assert node.ztunnels.settled

    asyncio.run(body())


def test_adds_go_to_the_newest_and_deletes_to_all(tmp_path: Path) -> None:
    async def body() -> None:
        async with agent(tmp_path) as node:
            node.ztunnels.add(WEB, node.netns)
            old = await node.client()
            await old.takes(WEB, SnapshotSent())
            new = await node.client()
            await new.takes(WEB, SnapshotSent())
            node.ztunnels.add(DB, node.netns)
            await new.takes(DB)
            removal = asyncio.create_task(node.ztunnels.remove("u1"))
            await new.takes(DelWorkload("u1"))
            await asyncio.wait({removal}, timeout=0.05)
            assert not removal.done()
            await old.takes(DelWorkload("u1"))
            async with asyncio.timeout(5):
                await removal

    asyncio.run(body())


def test_when_the_newest_goes_the_one_before_it_learns_what_it_missed(tmp_path: Path) -> None:
    async def body() -> None:
        async with agent(tmp_path) as node:
            old = await node.client()
            await old.takes(SnapshotSent())
            new = await node.client()
            await new.takes(SnapshotSent())
            node.ztunnels.add(WEB, node.netns)
            assert await new.next() == WEB
            new.sock.close()
            await old.takes(WEB)
            async with asyncio.timeout(5):
                await node.ztunnels.served("u1")
            assert node.ztunnels.count == 1
            assert len(node.went) == 1

    asyncio.run(body())


def test_a_removal_ends_when_the_ztunnel_goes_instead_of_answering(tmp_path: Path) -> None:
    async def body() -> None:
        async with agent(tmp_path) as node:
            node.ztunnels.add(WEB, node.netns)
            client = await node.client()
            await client.takes(WEB, SnapshotSent())
            removal = asyncio.create_task(node.ztunnels.remove("u1"))
            assert await client.next() == DelWorkload("u1")
            client.sock.close()
            async with asyncio.timeout(5):
                await removal

    asyncio.run(body())


def test_without_a_ztunnel_a_removal_is_done_at_once(tmp_path: Path) -> None:
    async def body() -> None:
        async with agent(tmp_path) as node:
            node.ztunnels.add(WEB, node.netns)
            async with asyncio.timeout(1):
                await node.ztunnels.remove("u1")
            client = await node.client()
            await client.takes(SnapshotSent())

    asyncio.run(body())


@pytest.mark.parametrize("first", [b"\xff\xff", b"", encode_ack(Ack())])
def test_a_peer_that_does_not_speak_zds_is_disconnected_and_never_counted(tmp_path: Path, first: bytes) -> None:
    async def body() -> None:
        async with agent(tmp_path) as node:
            sock = await node.connect()
            await sock.send(first)
            async with asyncio.timeout(5):
                data, _ = await sock.receive(MAX_PACKET, 0)
            assert data == b""
            assert node.came == []

    asyncio.run(body())


def test_an_unasked_ack_ends_the_connection(tmp_path: Path) -> None:
    async def body() -> None:
        async with agent(tmp_path) as node:
            client = await node.client()
            await client.takes(SnapshotSent())
            await until(lambda: node.ztunnels.settled)
            await client.ack()
            async with asyncio.timeout(5):
                data, _ = await client.sock.receive(MAX_PACKET, 0)
            assert data == b""
            await until(lambda: node.went)

    asyncio.run(body())


def test_only_the_agents_own_user_can_reach_the_socket(tmp_path: Path) -> None:
    async def body() -> None:
        async with agent(tmp_path) as node:
            await node.connect()
            assert node.path.stat().st_mode & 0o777 == 0o600

    asyncio.run(body())
