"""Key custody: only memfds, back to the same user, nothing expired, nothing left open."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import cast

import pytest

from ambient.agent.custody import Custody, _serve_one, serve
from ambient.errors import ProtocolError
from ambient.zds import packet
from ambient.zds.custody import MAX_PACKET, Drop, End, Held, List, Put, decode, encode
from ambient.zds.custody import Custody as Message
from tests.support.agent_fakes import until


def memfd(content: bytes) -> int:
    fd = os.memfd_create("key")
    os.write(fd, content)
    return fd


def put(identity: str = "spiffe://a", not_after: float = 200.0) -> Put:
    return Put(identity, not_after, "roots")


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_was_put_is_held_until_it_is_dropped() -> None:
    custody = Custody(lambda: 100.0)
    custody.put(0, put(), memfd(b"key"))
    [(held, fd)] = custody.held(0)
    assert held == Held("spiffe://a", 200.0, "roots")
    assert os.pread(fd, 9, 0) == b"key"
    custody.drop(0, "spiffe://a")
    custody.drop(0, "spiffe://a")
    assert custody.held(0) == []


def test_another_user_gets_nothing() -> None:
    custody = Custody(lambda: 100.0)
    custody.put(0, put(), memfd(b"key"))
    assert custody.held(1000) == []
    custody.drop(1000, "spiffe://a")
    assert len(custody) == 1
    custody.close()


def test_the_newest_of_an_identity_counts() -> None:
    custody = Custody(lambda: 100.0)
    custody.put(0, put(), memfd(b"old"))
    custody.put(0, put(not_after=300.0), memfd(b"new"))
    [(held, fd)] = custody.held(0)
    assert (held.not_after, os.pread(fd, 9, 0)) == (300.0, b"new")
    custody.close()


def test_the_expired_is_forgotten() -> None:
    now = [100.0]
    custody = Custody(lambda: now[0])
    custody.put(0, put(), memfd(b"key"))
    now[0] = 200.0
    assert custody.held(0) == []
    assert len(custody) == 0


def test_what_is_lacking_is_known_only_while_a_ztunnel_puts_its_secrets_here() -> None:
    came = []
    custody = Custody(lambda: 100.0, came=lambda: came.append(1))
    assert not custody.lacks("shop", "web")
    custody.clients = 1
    assert custody.lacks("shop", "web")
    custody.put(0, put("spiffe://cluster.local/ns/shop/sa/web"), memfd(b"key"))
    assert came == [1]
    assert not custody.lacks("shop", "web")
    assert custody.lacks("shop", "web2")
    custody.close()


def test_anything_but_a_memfd_is_refused() -> None:
    custody = Custody(lambda: 100.0)
    with pytest.raises(ProtocolError, match="no memfd"):
        custody.put(0, put(), os.open("/dev/null", os.O_RDONLY))
    assert len(custody) == 0


def test_more_than_can_be_held_is_refused_and_closed() -> None:
    custody = Custody(lambda: 100.0, most=2)
    before = open_fds()
    for name in ("a", "b"):
        custody.put(0, put(f"spiffe://{name}"), memfd(b"key"))
    with pytest.raises(ProtocolError, match="2 secrets are held already"):
        custody.put(0, put("spiffe://c"), memfd(b"key"))
    assert open_fds() == before + 2
    custody.put(0, put("spiffe://b"), memfd(b"new"))
    assert [held.identity for held, _ in custody.held(0)] == ["spiffe://a", "spiffe://b"]
    custody.close()


class OtherUser:
    """A connection of somebody who is not us; whoever reads from it has let him in."""

    peer = packet.Peer(pid=1, uid=os.getuid() + 1, gid=0)
    closed = False

    async def receive(self, limit: int, descriptors: int) -> tuple[bytes, list[int]]:
        raise AssertionError("read from a stranger")

    def close(self) -> None:
        self.closed = True


def test_another_user_is_not_listened_to() -> None:
    stranger = OtherUser()
    asyncio.run(_serve_one(Custody(lambda: 100.0), cast(packet.PacketSocket, stranger)))
    assert stranger.closed


def test_no_descriptor_is_left_open() -> None:
    before = open_fds()
    custody = Custody(lambda: 100.0)
    for number in range(5):
        custody.put(0, put(f"spiffe://{number % 2}"), memfd(b"key"))
    with pytest.raises(ProtocolError):
        custody.put(0, put(), os.open("/dev/null", os.O_RDONLY))
    custody.close()
    assert open_fds() == before


async def _session(path: Path, *messages: tuple[Message, list[int]]) -> list[tuple[Message, bytes]]:
    await until(path.exists)
    sock = packet.connect(path)
    for message, fds in messages:
        await sock.send(encode(message), fds)
        packet.close_all(fds)
    await sock.send(encode(List()))
    answers: list[tuple[Message, bytes]] = []
    async with asyncio.timeout(5):
        while not answers or not isinstance(answers[-1][0], End):
            data, fds = await sock.receive(MAX_PACKET, 1)
            answers.append((decode(data, len(fds)), os.pread(fds[0], 9, 0) if fds else b""))
            packet.close_all(fds)
    sock.close()
    return answers


def test_the_next_ztunnel_gets_the_keys_of_the_last(tmp_path: Path) -> None:
    async def body() -> None:
        custody = Custody(lambda: 100.0)
        serving = asyncio.create_task(serve(custody, tmp_path / "s"))
        await _session(tmp_path / "s", (put("spiffe://a"), [memfd(b"A")]), (put("spiffe://b"), [memfd(b"B")]))
        answers = await _session(tmp_path / "s", (Drop("spiffe://b"), []))
        assert answers == [(Held("spiffe://a", 200.0, "roots"), b"A"), (End(), b"")]
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
        serving.cancel()
        await asyncio.wait({serving})
        custody.close()

    asyncio.run(body())


@pytest.mark.parametrize("data", [b"", b"\x00nonsense", encode(End())])
def test_a_peer_that_talks_nonsense_is_disconnected_and_the_keys_stay(tmp_path: Path, data: bytes) -> None:
    async def body() -> None:
        custody = Custody(lambda: 100.0)
        serving = asyncio.create_task(serve(custody, tmp_path / "s"))
        await _session(tmp_path / "s", (put(), [memfd(b"A")]))
        sock = packet.connect(tmp_path / "s")
        await sock.send(data)
        async with asyncio.timeout(5):
            answer, _ = await sock.receive(MAX_PACKET, 1)
        assert answer == b""
        sock.close()
        assert len(await _session(tmp_path / "s")) == 2
        serving.cancel()
        await asyncio.wait({serving})
        custody.close()

    asyncio.run(body())
