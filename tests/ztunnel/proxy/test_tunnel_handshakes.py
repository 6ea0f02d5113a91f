"""The handshake of a tunnel: beside the loop, whole records only, and over once however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.support.h2_peer import Peer
from tests.support.tunnel import World, application, conversation, echo, pair, run, until, world
from ztunnel.ipc import messages as m
from ztunnel.proxy.pod import BEHIND
from ztunnel.proxy.tunnel import HANDSHAKE_TIMEOUT_S, Tunnel
from ztunnel.tls.records import PIECES

HELLO_OF_NOTHING = bytes((22, 3, 1, 0, 64)) + bytes(64)


@contextlib.contextmanager
def held_up(here: World) -> Iterator[None]:
    """The worker's thread of handshakes is busy meanwhile."""
    over = threading.Event()
    here.workers[0].plane.handshakes._beside.submit(over.wait, 20)
    try:
        yield
    finally:
        over.set()


def computing(here: World) -> list[Tunnel]:
    return [one for one in here.workers[0].plane.tunnels if isinstance(one, Tunnel) and one.computing]


def test_octets_do_not_wait_for_a_handshake() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, server = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            with held_up(here):
                peer = Peer(here, server)
                begun = asyncio.create_task(peer.connect())
                await until(lambda: bool(computing(here)))
                for octet in b"abcdefgh":
                    writer.write(bytes((octet,)))
                    assert await reader.readexactly(1) == bytes((octet,))
                assert not begun.done()
            await begun
            peer.close()
            writer.close()

    run(scenario)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("how", ["the peer resets it", "its time is over", "the pod goes"])
def test_a_tunnel_that_ends_while_its_handshake_is_computed_is_over_once(how: str, begun: bool) -> None:
    async def scenario() -> None:
        async with world() as here:
            server = await here.pod("server", "127.0.0.12")
            plane = here.workers[0].plane
            with held_up(here):
                peers = [socket.create_connection(server.hbone)]
                peers[0].send(HELLO_OF_NOTHING)
                await until(lambda: len(computing(here)) == 1)
                (tunnel,) = computing(here)
                while not begun and not plane.handshakes.waiting(tunnel.pod):
                    # Steps of the ones before are with the thread; this one's is in the queue before it.
                    before = set(computing(here))
                    peers.append(socket.create_connection(server.hbone))
                    peers[-1].send(HELLO_OF_NOTHING)
                    await until(lambda: len(computing(here)) == len(peers))
                    (tunnel,) = set(computing(here)) - before
                if how == "the peer resets it":
                    peers[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    peers[-1].close()
                elif how == "its time is over":
                    tunnel.born -= HANDSHAKE_TIMEOUT_S + 1
                else:
                    here.director.send(m.PodDown(uid=server.uid))
                await until(lambda: tunnel not in plane.tunnels)
                assert tunnel.closed
                assert not plane.handshakes.waiting(tunnel.pod), "what waits is taken back"
                assert hasattr(tunnel.session, "feed") is begun, "the session is the thread's, or nobody's"
            await until(lambda: not hasattr(tunnel.session, "feed") and not computing(here))
            for peer in peers:
                peer.close()
            await until(lambda: not plane.tunnels)
            assert plane.balance._count == 0
            assert here.log().count("connection failed") == len(peers)

    run(scenario)


def test_only_whole_records_of_a_handshake_are_computed() -> None:
    async def scenario() -> None:
        async with world() as here:
            server = await here.pod("server", "127.0.0.12")
            with socket.create_connection(server.hbone) as peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await until(lambda: len(here.workers[0].plane.tunnels) == 1)
                (tunnel,) = [one for one in here.workers[0].plane.tunnels if isinstance(one, Tunnel)]
                for at in range(len(HELLO_OF_NOTHING)):
                    assert not tunnel.computing
                    assert not tunnel.delayed
                    peer.send(HELLO_OF_NOTHING[at : at + 1])
                    await until(lambda at=at: tunnel.reads == at + 1)
                await until(lambda: tunnel.delayed > 0)
            assert "connection failed" in here.log()

    run(scenario)


def test_a_handshake_in_too_many_pieces_is_dropped() -> None:
    async def scenario() -> None:
        async with world() as here:
            server = await here.pod("server", "127.0.0.12")
            with socket.create_connection(server.hbone) as peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await until(lambda: len(here.workers[0].plane.tunnels) == 1)
                (tunnel,) = [one for one in here.workers[0].plane.tunnels if isinstance(one, Tunnel)]
                for number, octet in enumerate(bytes((1, 0, 1, 0)) + bytes(PIECES)):
                    if not tunnel.closed:
                        peer.send(bytes((22, 3, 1, 0, 1, octet)))
                        await until(lambda number=number: tunnel.closed or tunnel.reads > number)
                assert tunnel.reads == PIECES + 1
            assert "TLS handshake: in too many pieces" in here.log()

    run(scenario)


def test_what_cannot_be_computed_soon_is_not_accepted_yet() -> None:
    async def scenario() -> None:
        async with world() as here:
            server = await here.pod("server", "127.0.0.12")
            worker = here.workers[0]
            pod = worker._pods[server.uid].pod
            peers = []
            with held_up(here):
                while worker.plane.handshakes.waiting(pod) <= BEHIND:
                    assert pod.pause_before_tunnel() == 0.0
                    peers.append(socket.create_connection(server.hbone))
                    peers[-1].send(HELLO_OF_NOTHING)
                    await until(lambda: len(computing(here)) == len(peers))
                assert pod.pause_before_tunnel() > 0.0
                peers += [socket.create_connection(server.hbone) for _ in range(20)]
            for peer in peers:
                peer.send(HELLO_OF_NOTHING)
            await until(lambda: here.log().count("connection failed") == len(peers))
            for peer in peers:
                peer.close()

    run(scenario)
