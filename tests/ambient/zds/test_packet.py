"""Packets and descriptors over a real local socket, and custody messages on top."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from ambient.errors import ProtocolError, Unavailable
from ambient.zds import custody, packet


async def pair(path: Path) -> tuple[packet.PacketSocket, packet.PacketSocket]:
    listener = packet.listen(path)
    client = packet.connect(path)
    server = await packet.accept(listener)
    listener.close()
    return client, server


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_descriptor_travels_with_its_packet(tmp_path: Path) -> None:
    async def scenario() -> None:
        client, server = await pair(tmp_path / "s")
        memfd = os.memfd_create("secret")
        os.write(memfd, b"key")
        await client.send(b"hello", [memfd])
        os.close(memfd)
        data, fds = await server.receive(100)
        assert data == b"hello"
        assert os.pread(fds[0], 10, 0) == b"key"
        assert not os.get_inheritable(fds[0])
        assert server.peer.pid == os.getpid()
        packet.close_all(fds)
        client.close()
        assert await server.receive(100) == (b"", [])
        server.close()

    asyncio.run(scenario())


def test_packets_wait_for_a_slow_reader_and_keep_their_borders(tmp_path: Path) -> None:
    async def scenario() -> None:
        client, server = await pair(tmp_path / "s")

        async def flood() -> None:
            for index in range(3000):
                await client.send(b"%d" % index)
            client.close()

        sending = asyncio.create_task(flood())
        received = []
        while (data := (await server.receive(100))[0]) != b"":
            received.append(int(data))
        await sending
        assert received == list(range(3000))
        server.close()

    asyncio.run(scenario())


def test_an_oversized_packet_or_too_many_descriptors_are_refused_and_leak_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        client, server = await pair(tmp_path / "s")
        before = open_descriptors()
        await client.send(b"x" * 101, [0])
        with pytest.raises(ProtocolError):
            await server.receive(100)
        await client.send(b"x", [0, 1, 2])
        with pytest.raises(ProtocolError):
            await server.receive(100, 1)
        assert open_descriptors() == before
        client.close()
        server.close()

    asyncio.run(scenario())


def test_the_socket_is_for_its_owner_only_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    packet.listen(path).close()
    listener = packet.listen(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.close()
    with pytest.raises(Unavailable, match="cannot connect"):
        packet.connect(path)
    with pytest.raises(Unavailable, match="cannot listen"):
        packet.listen(tmp_path / "missing" / "s")


def test_sending_to_a_closed_peer_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        client, server = await pair(tmp_path / "s")
        server.close()
        with pytest.raises(Unavailable):
            await client.send(b"x")
        client.close()

    asyncio.run(scenario())


def test_a_connection_that_was_reset_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        client, server = await pair(tmp_path / "s")
        await client.send(b"never read")
        server.close()
        with pytest.raises(Unavailable, match="reset"):
            await client.receive(100)
        client.close()

    asyncio.run(scenario())


def test_custody_messages_round_trip_and_demand_their_descriptor() -> None:
    put = custody.Put("spiffe://cluster.local/ns/a/sa/b", 1e9, "roots")
    assert custody.decode(custody.encode(put), 1) == put
    for message in (custody.Drop("x"), custody.List(), custody.End()):
        assert custody.decode(custody.encode(message), 0) == message
    with pytest.raises(ProtocolError, match="came with 0 descriptors"):
        custody.decode(custody.encode(put), 0)
    with pytest.raises(ProtocolError, match="came with 1 descriptors"):
        custody.decode(custody.encode(custody.List()), 1)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x81\xa4type\xa5other", b"\x90", b"\x81\xa4type\xa3put"])
def test_a_custody_packet_of_unknown_shape_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        custody.decode(data, 0)


def test_a_custody_packet_that_cannot_be_received_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        custody.encode(custody.Put("i", 0.0, "x" * 200_000))
