"""A tunnel that is never finished, floods, or goes quiet is ended by us."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct

import h2.events
import pytest

from tests.support.h2_peer import Peer
from tests.support.tunnel import application, conversation, echo, pair, run, talk, until, world
from ztunnel.hbone import frames
from ztunnel.hbone.frames import Code
from ztunnel.hbone.limits import Violation, violated
from ztunnel.proxy.backlog import CHUNK
from ztunnel.proxy.inbound import InboundTunnel
from ztunnel.proxy.pool import ClientTunnel
from ztunnel.proxy.socket_end import Buffers
from ztunnel.proxy.tunnel import (
    _SMALLEST_REACH,
    HANDSHAKE_TIMEOUT_S,
    SLICE_S,
    TUNNEL_HIGH_WATER,
    WORK_AT_ONCE,
    Tunnel,
)


def test_a_handshake_that_never_comes_is_given_up() -> None:
    async def scenario() -> None:
        async with world() as here:
            server = await here.pod("server", "127.0.0.12")
            reader, writer = await asyncio.open_connection(*server.hbone)
            await until(lambda: len(here.workers[0].plane.tunnels) == 1)
            (tunnel,) = here.workers[0].plane.tunnels
            tunnel.born -= HANDSHAKE_TIMEOUT_S + 1
            assert await reader.read() == b""
            assert "TLS handshake: timed out" in here.log()
            writer.close()

    run(scenario)


def test_a_peer_that_does_not_speak_tls_is_refused_and_logged() -> None:
    async def scenario() -> None:
        async with world() as here:
            server = await here.pod("server", "127.0.0.12")
            answer = await talk(server.hbone, b"GET / HTTP/1.1\r\n\r\n")
            assert b"HTTP" not in answer
            await until(lambda: "connection failed" in here.log())
            assert not here.workers[0].plane.tunnels

    run(scenario)


def test_a_peer_that_is_gone_when_it_is_refused_is_told_of_once() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    refused = hello.read()

    async def scenario() -> None:
        async with world() as here:
            server = await here.pod("server", "127.0.0.12")
            balance = here.workers[0].plane.balance
            for _ in range(5):
                # Its hello and its reset are there together: the alert that we have for it finds nobody.
                with socket.create_connection(server.hbone) as peer:
                    peer.send(refused)
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await until(lambda: here.log().count("connection failed") >= 5)
            assert here.log().count("connection failed") == 5
            balance.add(1)
            assert balance._numbers[1] == 2
            balance.add(-1)

    run(scenario)


def test_an_answer_that_is_ready_when_the_session_breaks_is_left_unsaid() -> None:
    async def scenario() -> None:
        async with world() as here:
            server = await here.pod("server", "127.0.0.12")
            context = Peer(here, server).context

            def shake() -> ssl.SSLSocket:
                return context.wrap_socket(socket.create_connection(server.hbone))

            with await asyncio.to_thread(shake) as peer:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else the second waits for the first
                peer.send(frames.PREFACE + frames.settings(()) + frames.frame(frames.PING, 0, 0, b"12345678"))
                socket.socket.send(peer, b"\x17\x03\x03\x00\x20" + bytes(32))
                await until(lambda: here.counter("tls_errors") == 1)
                await until(lambda: not here.workers[0].plane.tunnels)

    run(scenario)


def test_a_tunnel_whose_peer_stops_answering_pings_is_closed_with_its_streams() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            reader, writer = await conversation(client.outbound)
            plane = here.workers[0].plane
            (inbound,) = [one for one in plane.tunnels if isinstance(one, InboundTunnel)]
            inbound.stop_reading()
            now = plane.clock()
            plane.clock = lambda: now + 60
            plane.tick()
            plane.clock = lambda: now + 71
            plane.tick()
            plane.clock = lambda: now + 92
            plane.tick()
            await until(lambda: here.counter(violated("ping_timeout")) >= 1)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()

    run(scenario)


@pytest.mark.parametrize("silent", [True, False])
def test_to_a_peer_that_is_gone_no_end_is_said_that_the_kernel_would_repeat_for_minutes(silent: bool) -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            plane = here.workers[0].plane
            (inbound,) = [one for one in plane.tunnels if isinstance(one, InboundTunnel)]
            (peer,) = [one for one in plane.tunnels if isinstance(one, ClientTunnel)]
            inbound.core.fail(Violation(Code.NO_ERROR, "", "tested", silent=silent))
            await until(lambda: peer.closed)
            assert isinstance(peer.death, ConnectionResetError) is silent

    run(scenario)


def test_frames_of_one_octet_by_the_ten_thousand_arrive_whole_though_others_go_first() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            pod = await here.pod("server", "127.0.0.12")
            peer = Peer(here, pod)
            await peer.connect()
            assert (await peer.ask(f"127.0.0.12:{port}"))[0] == 200
            plane, turns = here.workers[0].plane, [0]
            (inbound,) = [one for one in plane.tunnels if isinstance(one, InboundTunnel)]
            before = inbound.reads

            def turn() -> None:
                turns[0] += 1
                plane.loop.call_soon(turn)

            plane.loop.call_soon(turn)
            said = bytes(range(250)) * 40
            peer.writer.write(b"".join(frames.frame(frames.DATA, 0, 1, said[n : n + 1]) for n in range(len(said))))
            peer.writer.write(frames.frame(frames.DATA, frames.END_STREAM, 1))
            while not any(isinstance(event, h2.events.StreamEnded) for event in peer.events):
                await peer.pump()
            assert b"".join(e.data for e in peer.events if isinstance(e, h2.events.DataReceived)) == said
            assert turns[0] >= len(said) // WORK_AT_ONCE - (inbound.reads - before)
            assert inbound.reading
            peer.close()

    run(scenario)


@pytest.mark.parametrize("what", ["requests that are refused", "requests that are reset", "pings"])
def test_after_work_for_nothing_others_have_the_processor_too_and_all_is_answered_the_same(what: str) -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            peer = Peer(here, await here.pod("server", "127.0.0.12"))
            await peer.connect()
            plane = here.workers[0].plane
            (inbound,) = [one for one in plane.tunnels if isinstance(one, InboundTunnel)]
            turns = [0]

            def turn() -> None:
                turns[0] += 1
                plane.loop.call_soon(turn)

            plane.loop.call_soon(turn)
            for number in range(80 if what != "pings" else 600):
                if what == "pings":
                    peer.h2.ping(b"%08d" % number)
                    continue
                stream = peer.h2.get_next_available_stream_id()
                peer.h2.send_headers(stream, [(":method", "CONNECT"), (":authority", "10.9.9.9:22")])
                if what == "requests that are reset":
                    peer.h2.reset_stream(stream)
            peer.h2.ping(b"the last")
            peer.writer.write(peer.h2.data_to_send())
            while not any(getattr(event, "ping_data", b"") == b"the last" for event in peer.events):
                await peer.pump()
            if what == "requests that are refused":
                assert sum(isinstance(event, h2.events.ResponseReceived) for event in peer.events) == 80
            assert inbound.core.work_at_once < WORK_AT_ONCE
            assert turns[0] > 3 * 20, "a pause is many turns of a loop with nothing else to do"
            assert (await peer.ask(f"127.0.0.12:{port}"))[0] == 200
            peer.close()

    run(scenario)


def test_requests_of_a_peer_that_has_closed_are_left_undone() -> None:
    async def scenario() -> None:
        async with world() as here:
            peer = Peer(here, await here.pod("server", "127.0.0.12"))
            await peer.connect()
            (inbound,) = [one for one in here.workers[0].plane.tunnels if isinstance(one, InboundTunnel)]
            for _ in range(90):
                peer.h2.send_headers(
                    peer.h2.get_next_available_stream_id(), [(":method", "CONNECT"), (":authority", "10.9.9.9:22")]
                )
            peer.writer.write(peer.h2.data_to_send())
            await until(lambda: inbound.core.unfinished)
            # As when close_notify is found behind them: the turn in which that is has to go through all there is.
            inbound._finish()
            assert not inbound.core.unfinished
            peer.close()
            await until(lambda: inbound.closed)
            assert 0 < here.log().count("connection complete") < 60

    run(scenario)


def test_what_costs_much_is_worked_on_in_small_pieces_and_others_have_their_turn_between() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            plane, now = here.workers[0].plane, [plane_time := here.workers[0].plane.clock()]

            def dear() -> float:
                """Whatever is done takes longer than a slice."""
                now[0] += 2 * SLICE_S
                return now[0]

            plane.clock = dear
            said = bytes(range(256)) * 200
            assert await talk(client.outbound, said) == said
            reaches = {one._reach for one in plane.tunnels if isinstance(one, Tunnel)}
            assert reaches == {_SMALLEST_REACH}
            plane.clock = lambda: plane_time
            said *= 100
            assert await talk(client.outbound, said) == said
            assert Buffers.SIZE in {one._reach for one in plane.tunnels if isinstance(one, Tunnel)}

    run(scenario)


def test_a_tunnel_in_the_middle_of_its_pieces_lets_others_go_first() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            plane, now, turns = here.workers[0].plane, [here.workers[0].plane.clock()], [0]
            seen: list[int] = []

            def dear() -> float:
                seen.append(turns[0])
                now[0] += 2 * SLICE_S
                return now[0]

            def turn() -> None:
                turns[0] += 1
                plane.loop.call_soon(turn)

            plane.clock = dear
            plane.loop.call_soon(turn)
            assert await talk(client.outbound, bytes(20_000)) == bytes(20_000)
            assert len(set(seen)) > 10, "every piece in a turn of its own"

    run(scenario)


def test_what_is_written_in_one_turn_waits_in_pages_of_ours_and_not_in_the_buffer_of_openssl() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            (peer,) = [one for one in here.workers[0].plane.tunnels if isinstance(one, ClientTunnel)]
            for _ in range(64):
                peer.write(bytes(CHUNK))
                assert len(peer.session.pending()) < 2 * CHUNK
            assert peer.congested
            assert peer.backlog_size > TUNNEL_HIGH_WATER
            peer.drop()

    run(scenario)


def test_a_tunnel_that_breaks_while_it_is_written_to_is_there_until_the_end_of_the_turn() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client, _ = await pair(here, port)
            assert await talk(client.outbound) == b"hello"
            (peer,) = [one for one in here.workers[0].plane.tunnels if isinstance(one, ClientTunnel)]
            peer.sock.shutdown(socket.SHUT_WR)
            peer.write(bytes(2 * CHUNK))
            assert not peer.closed
            await until(lambda: peer.closed)
            assert isinstance(peer.death, BrokenPipeError)

    run(scenario)
