"""DNS messages on a TCP connection, however they are cut."""

from __future__ import annotations

import asyncio
import socket

from tests.support.tunnel import run, until, world
from ztunnel.dns.stream import MessageEnd


def test_messages_come_whole_and_in_order_however_they_are_cut_and_the_end_is_told() -> None:
    async def scenario() -> None:
        async with world() as here:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
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
