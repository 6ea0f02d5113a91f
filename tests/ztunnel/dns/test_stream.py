"""DNS messages on a TCP connection, however they are cut."""

from __future__ import annotations

import asyncio
import socket

from tests.support.tunnel import run, until, world
from ztunnel.dns.stream import MessageEnd


def both_ends() -> tuple[socket.socket, socket.socket]:
    """Of a connection on which nobody blocks."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def test_messages_come_whole_and_in_order_however_they_are_cut_and_the_end_is_told() -> None:
    async def scenario() -> None:
        async with world() as here:
            ours, theirs = both_ends()
            got: list[bytes] = []
            lost: list[bool] = []
            end = MessageEnd(here.workers[0].plane, ours, got.append, lambda: lost.append(True))
            end.start_reading()
            for octet in b"\0\3one":
                theirs.send(bytes((octet,)))
                await asyncio.sleep(0)
            theirs.send(b"\0\0\0\3two\0\5th")
            await until(lambda: got == [b"one", b"", b"two"])
            end.send(b"answer")
            await until(lambda: theirs.recv(64, socket.MSG_DONTWAIT) == b"\0\6answer")
            theirs.close()
            await until(lambda: lost == [True])

    run(scenario)


def test_who_reads_no_answers_is_not_heard_until_it_does() -> None:
    async def scenario() -> None:
        async with world() as here:
            ours, theirs = both_ends()
            got: list[bytes] = []

            def received(message: bytes) -> None:
                got.append(message)
                end.send(bytes(60_000))

            end = MessageEnd(here.workers[0].plane, ours, received, lambda: None)
            end.start_reading()
            theirs.send(b"\0\1q" * 1_000)
            await until(lambda: end.congested)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(got) < 100
            assert end.backlog_size < 400_000
            loop, answered = asyncio.get_running_loop(), 0
            while answered < 1_000 * 60_002:
                answered += len(await loop.sock_recv(theirs, 1 << 20))
            assert len(got) == 1_000
            end.close()
            theirs.close()

    run(scenario)


def test_answers_to_what_was_asked_before_end_a_connection_on_which_nobody_reads_them() -> None:
    async def scenario() -> None:
        async with world() as here:
            ours, theirs = both_ends()
            lost: list[bool] = []
            plane = here.workers[0].plane
            end = MessageEnd(plane, ours, lambda _: None, lambda: lost.append(True), plane.buffers.chunks)
            end.start_reading()
            for _ in range(100):
                end.send(bytes(60_000))
            assert lost == [True]
            assert end.closed
            theirs.close()

    run(scenario)


def test_who_says_no_more_may_hear_the_rest_before_the_end() -> None:
    async def scenario() -> None:
        async with world() as here:
            ours, theirs = both_ends()
            got: list[bytes] = []
            told: list[str] = []
            plane = here.workers[0].plane
            end = MessageEnd(plane, ours, got.append, lambda: told.append("lost"), None, lambda: told.append("ended"))
            end.start_reading()
            theirs.send(b"\0\1q\0\2h")
            theirs.shutdown(socket.SHUT_WR)
            await until(lambda: told == ["ended"])
            assert (got, end.closed) == ([b"q"], False)
            while not end.congested:
                end.send(bytes(60_000))
            end.send(b"last")
            end.end_writing()
            loop, heard = asyncio.get_running_loop(), b""
            while part := await loop.sock_recv(theirs, 1 << 20):
                heard += part
            assert heard.endswith(b"\0\4last")
            assert len(heard) % 60_002 == 6
            await until(lambda: end.closed)
            assert told == ["ended", "lost"]
            theirs.close()

    run(scenario)
