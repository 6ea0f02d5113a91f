"""The small HTTP server: pages, and everything that is not a request for one."""

from __future__ import annotations

import asyncio
import contextlib
from ipaddress import ip_address

import pytest

from ambient.errors import Unavailable
from ambient.http import MOST_HEADER_BYTES, HttpServer, Page
from ambient.model.address import Endpoint

LOOPBACK = Endpoint(ip_address("127.0.0.1"), 0)


async def exchange(port: int, request: bytes, *, half_close: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    if half_close:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def answer(request: bytes, *, half_close: bool = False) -> bytes:
    async def scenario() -> bytes:
        server = HttpServer({"/ready": lambda: Page(b"ok\n")})
        port = await server.start(LOOPBACK)
        try:
            return await exchange(port, request, half_close=half_close)
        finally:
            await server.stop()

    return asyncio.run(scenario())


def test_a_page_is_served_with_its_length_and_the_connection_is_closed() -> None:
    head, _, body = answer(b"GET /ready?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 3" in head
    assert b"Connection: close" in head
    assert body == b"ok\n"


def test_head_gives_the_head_only() -> None:
    assert answer(b"HEAD /ready HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /nothing HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /../ready HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /ready HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /ready\r\n\r\n", b"400"),
        (b"GET /ready HTTP/2.0\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET /ready HTTP/1.1\r\nX: " + b"a" * MOST_HEADER_BYTES + b"\r\n\r\n", b"400"),
    ],
)
def test_anything_else_is_refused(request_: bytes, status: bytes) -> None:
    assert answer(request_).startswith(b"HTTP/1.1 " + status)


def test_a_request_that_ends_early_is_refused() -> None:
    assert answer(b"GET /ready HT", half_close=True).startswith(b"HTTP/1.1 400")


def test_too_many_connections_are_turned_away_and_the_place_is_free_again() -> None:
    async def turned_away(port: int) -> bool:
        try:
            return not await exchange(port, b"GET /ready HTTP/1.1\r\n\r\n")
        except ConnectionResetError:
            return True

    async def scenario() -> None:
        server = HttpServer({"/ready": lambda: Page(b"ok\n")})
        port = await server.start(LOOPBACK)
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(128)]
        assert await turned_away(port)
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        while await turned_away(port):
            pass
        await server.stop()

    asyncio.run(scenario())


def test_stopping_cuts_connections_that_are_open() -> None:
    async def scenario() -> None:
        server = HttpServer({})
        port = await server.start(LOOPBACK)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await exchange(port, b"GET /x HTTP/1.1\r\n\r\n")
        await server.stop()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()

    asyncio.run(scenario())


def test_an_address_that_cannot_be_had_is_named() -> None:
    async def scenario() -> None:
        first = HttpServer({})
        port = await first.start(LOOPBACK)
        with pytest.raises(Unavailable, match=f"cannot listen: 127.0.0.1:{port}"):
            await HttpServer({}).start(Endpoint(LOOPBACK.ip, port))
        await first.stop()

    asyncio.run(scenario())
