"""A component's word that it stops, read from a real socket, and what the lab makes of it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from ambient.lab.notices import Notices


def say(path: Path, text: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text, str(path))


def test_only_the_process_that_is_meant_can_say_that_it_stops(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "notify"

    async def scenario() -> None:
        notices = Notices(path)
        try:
            waiting = asyncio.ensure_future(notices.stopping(7))
            for text in (b"READY=1", b"STOPPING=1\nMAINPID=6\n", b"STOPPING=1", b"\xff\0=", b"MAINPID=7\nSTOPPING=0"):
                say(path, text)
            say(path, b"STOPPING=1\nMAINPID=8\n")
            await asyncio.sleep(0)
            assert not waiting.done()
            say(path, b"STOPPING=1\nMAINPID=7\n")
            async with asyncio.timeout(20):
                await waiting
        finally:
            notices.close()
        assert not path.exists()

    asyncio.run(scenario())


def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = Notices(tmp_path / "notify")
        second = Notices(tmp_path / "notify")
        say(tmp_path / "notify", b"STOPPING=1\nMAINPID=1\n")
        async with asyncio.timeout(20):
            await second.stopping(1)
        first.close()
        second.close()

    asyncio.run(scenario())
