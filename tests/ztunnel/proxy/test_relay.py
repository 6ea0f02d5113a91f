"""What a relayed connection keeps: every byte, each half-close, back-pressure, and the difference between an end and
an abort. The same cases over a tunnel, straight, and in plain text to the pod."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.tunnel import World, application, echo, run, until, world
from ztunnel.hbone.limits import SERVER
from ztunnel.proxy.poller import BROKEN
from ztunnel.proxy.relay import APP_HIGH_WATER, TunnelledEnd
from ztunnel.proxy.socket_end import SocketEnd

PATHS = pytest.mark.parametrize("path", ["tunnel", "straight", "plain"])
RESET = struct.pack("ii", 1, 0)


@asynccontextmanager
async def path_to(path: str, here: World, port: int) -> AsyncIterator[tuple[str, int]]:
    """Where to connect so that the connection takes this path to the application at 127.0.0.12."""
    client = await here.pod("client", "127.0.0.11")
    server = await here.pod("server", "127.0.0.12")
    if path == "plain":
        here.capture(server.plain, "127.0.0.12", port)
        yield server.plain
        return
    if path == "tunnel":
        here.route(client, server, port)
    else:
        here.route(client, server, port, authority="", port=port)
    yield client.outbound


@PATHS
def test_many_megabytes_arrive_unchanged_in_both_directions(path: str) -> None:
    sent, size = hashlib.sha256(), 24 << 20

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port, path_to(path, here, port) as address:
            reader, writer = await asyncio.open_connection(*address)

            async def write() -> None:
                left = size
                while left:
                    part = os.urandom(min(left, 300_001))
                    left -= len(part)
                    sent.update(part)
                    writer.write(part)
                    await writer.drain()
                writer.write_eof()

            async def read() -> bytes:
                received = hashlib.sha256()
                while data := await reader.read(1 << 18):
                    received.update(data)
                return received.digest()

            _, received = await asyncio.gather(write(), read())
            assert received == sent.digest()
            writer.close()
            await until(lambda: here.workers[0].recorder.open_count == 0)

    run(scenario, timeout=60)


@PATHS
def test_the_client_may_end_first_and_still_hear_the_answer(path: str) -> None:
    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read()
        for part in range(5):
            writer.write(b"%d:%d " % (part, len(question)))
            await writer.drain()
        writer.close()

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", late) as port, path_to(path, here, port) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"q" * 70_000)
            writer.write_eof()
            assert await reader.read() == b"0:70000 1:70000 2:70000 3:70000 4:70000 "
            writer.close()
            await until(lambda: here.workers[0].recorder.open_count == 0)
            assert "error=" not in here.log()

    run(scenario)


@PATHS
def test_the_server_may_speak_and_end_first(path: str) -> None:
    got: list[bytes] = []

    async def first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        writer.write_eof()
        got.append(await reader.read())
        writer.close()

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", first) as port, path_to(path, here, port) as address:
            reader, writer = await asyncio.open_connection(*address)
            assert await reader.read() == b"220 hello\r\n"
            writer.write(b"late words")
            await writer.drain()
            writer.close()
            await until(lambda: got == [b"late words"])
            await until(lambda: here.workers[0].recorder.open_count == 0)

    run(scenario)


@PATHS
def test_an_abort_by_the_server_is_an_abort_for_the_client(path: str) -> None:
    async def abort(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", abort) as port, path_to(path, here, port) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            await until(lambda: here.workers[0].recorder.open_count == 0)

    run(scenario)


@PATHS
def test_an_abort_by_the_client_is_an_abort_for_the_server(path: str) -> None:
    ends: list[str] = []

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(100):
                writer.write(b"ok")
            ends.append("end")
        except ConnectionResetError:
            ends.append("reset")
        writer.close()

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", watch) as port, path_to(path, here, port) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"x")
            assert await reader.readexactly(2) == b"ok"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
            await until(lambda: bool(ends))
            assert ends == ["reset"]
            await until(lambda: here.workers[0].recorder.open_count == 0)

    run(scenario)


@PATHS
def test_a_reader_that_stalls_stops_the_sender_at_a_fixed_amount(path: str) -> None:
    release = asyncio.Event()

    async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await release.wait()
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        total = 0
        while data := await reader.read(1 << 18):
            total += len(data)
        writer.write(str(total).encode())
        writer.close()

    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", stalled) as port, path_to(path, here, port) as address:
            loop = asyncio.get_running_loop()
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(0.6):
                        part = bytes(1 << 20)
                        await loop.sock_sendall(sock, part)
                        sent += len(part)
            worker = here.workers[0]
            held = sum(end.core.held for end in worker.plane.tunnels)
            assert held <= 4 << 20
            # The window and both kernels' socket buffers, nothing that grows with time.
            assert sent < 40 << 20
            release.set()
            await loop.run_in_executor(None, lambda: None)
            sock.shutdown(socket.SHUT_WR)
            answer = await loop.sock_recv(sock, 100)
            assert int(answer) >= sent
            sock.close()
            await until(lambda: worker.recorder.open_count == 0)

    run(scenario, timeout=60)


def test_a_stalled_stream_does_not_stop_its_neighbours_on_the_same_tunnel() -> None:
    release = asyncio.Event()

    async def some_stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"s":
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            await release.wait()
            writer.close()
            return
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def scenario() -> None:
        async with (
            world() as here,
            application("127.0.0.12", some_stall) as port,
            path_to("tunnel", here, port) as address,
        ):
            stalled = []
            for _ in range(8):
                _, writer = await asyncio.open_connection(*address)
                writer.write(b"s" + bytes(12 << 20))
                stalled.append(writer)
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"e" + b"y" * 100_000)
            writer.write_eof()
            assert await reader.read() == b"y" * 100_000
            release.set()
            for one in [*stalled, writer]:
                one.transport.abort()
            await until(lambda: here.workers[0].recorder.open_count == 0)

    run(scenario, timeout=60)


@asynccontextmanager
async def two_ends(path: str, here: World) -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """Plain sockets of a client and of the application, one byte said."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.12", 0)) as listener:
        listener.setblocking(False)
        async with path_to(path, here, listener.getsockname()[1]) as address:
            with socket.create_connection(address) as client:
                client.setblocking(False)
                await loop.sock_sendall(client, b"x")
                server, _ = await loop.sock_accept(listener)
                with server:
                    server.setblocking(False)
                    assert await loop.sock_recv(server, 1) == b"x"
                    yield client, server


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


@PATHS
@pytest.mark.parametrize("dies", ["client", "server"])
def test_an_application_that_resets_after_its_end_does_not_linger(path: str, dies: str) -> None:
    resets_after_its_end(path, dies)


def resets_after_its_end(path: str, dies: str, seconds: float = 10.0) -> None:
    async def scenario() -> None:
        async with world() as here, two_ends(path, here) as ends:
            worker = here.workers[0]
            dead, left = ends if dies == "client" else reversed(ends)
            dead.shutdown(socket.SHUT_WR)
            assert await asyncio.get_running_loop().sock_recv(left, 1) == b""
            reset(dead)
            await until(lambda: worker.recorder.open_count == 0, seconds)
            await until(lambda: left.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.EPIPE, errno.ECONNRESET))

    run(scenario)


@PATHS
@pytest.mark.parametrize("dies", ["client", "server"])
def test_a_reset_right_behind_octets_is_heard(path: str, dies: str) -> None:
    resets_behind_octets(path, dies)


def resets_behind_octets(path: str, dies: str, seconds: float = 10.0) -> None:
    """Of octets and reset we are told together; the octets are read first, and piece by piece."""

    async def scenario() -> None:
        async with world() as here, two_ends(path, here) as ends:
            dead, left = ends if dies == "client" else reversed(ends)
            dead.send(b"last words")
            reset(dead)
            await until(lambda: left.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET, seconds)
            await until(lambda: here.workers[0].recorder.open_count == 0)

    run(scenario)


@PATHS
@pytest.mark.parametrize("dies", ["client", "server"])
def test_an_application_that_resets_while_nobody_reads_from_it_does_not_linger(path: str, dies: str) -> None:
    async def scenario() -> None:
        async with world() as here, two_ends(path, here) as ends:
            dead = ends[0] if dies == "client" else ends[1]
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(0.6):
                        await asyncio.get_running_loop().sock_sendall(dead, bytes(1 << 20))
            worker = here.workers[0]
            reset(dead)
            await until(lambda: worker.recorder.open_count == 0)

    run(scenario, timeout=40)


def test_sabotage_when_nobody_looks_a_dead_application_lingers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SocketEnd, "_broken", lambda end: end.poller.leave(end.fd))
    with pytest.raises(AssertionError, match="condition did not become true"):
        resets_after_its_end("straight", "client", 2.0)


def test_sabotage_told_of_an_error_once_only_a_reset_behind_octets_is_never_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = SocketEnd._ready

    def once(end: SocketEnd, events: int) -> None:
        if events & BROKEN:
            end.poller.leave(end.fd)
        real(end, events)

    monkeypatch.setattr(SocketEnd, "_ready", once)
    with pytest.raises(AssertionError, match="condition did not become true"):
        resets_behind_octets("straight", "client", 2.0)


def test_readers_that_stall_cost_their_sockets_marks_and_windows_and_no_octet_more() -> None:
    release, streams = asyncio.Event(), 12

    async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await release.wait()
        writer.transport.abort()

    async def scenario() -> None:
        async with (
            world() as here,
            application("127.0.0.12", stalled) as port,
            path_to("tunnel", here, port) as address,
        ):
            worker, loop = here.workers[0], asyncio.get_running_loop()
            senders = []
            for _ in range(streams):
                sock = socket.socket()
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
                senders.append(sock)

            def ends() -> list[TunnelledEnd]:
                live = [flow for served in worker._pods.values() for flow in served.pod.live._live]
                return [end for flow in live if (end := getattr(flow, "_end", None)) is not None]

            much = bytes(64 << 20)
            filling = [asyncio.create_task(loop.sock_sendall(sock, much)) for sock in senders]
            await until(lambda: len(ends()) == streams and all(end.congested for end in ends()), 30)
            # Whose octets were taken for a while may have a larger window; all of them together only so much.
            assert (APP_HIGH_WATER, SERVER.stream_window, SERVER.growth) == (262_144, 524_288, 12_582_912)
            kept = [end.backlog_size for end in ends()]
            assert all(APP_HIGH_WATER < size <= APP_HIGH_WATER + SERVER.grown_window for size in kept), kept
            assert sum(kept) <= streams * (APP_HIGH_WATER + SERVER.stream_window) + SERVER.growth
            held = sum(end.core.held for end in worker.plane.tunnels)
            assert 0 < held <= streams * SERVER.stream_window + SERVER.growth
            for task in filling:
                task.cancel()
            await asyncio.gather(*filling, return_exceptions=True)
            release.set()
            await until(lambda: worker.recorder.open_count == 0)
            for sock in senders:
                sock.close()

    run(scenario, timeout=60)
