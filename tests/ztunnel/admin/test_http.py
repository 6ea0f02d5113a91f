"""The small HTTP server with raw sockets: good requests, bad ones, slow ones, large ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.admin import http
from ztunnel.admin.http import Request, Response, Server, text


async def echo(request: Request) -> Response:
    if request.path == "/boom":
        raise LookupError("boom")
    if request.path == "/stream":

        async def chunks() -> AsyncIterator[bytes]:
            for part in (b"one\n", b"", b"two\n"):
                yield part

        return Response(stream=chunks())
    return text(200, f"{request.method} {request.path} {dict(request.query)}\n")


@asynccontextmanager
async def served(patience: float = 2.0) -> AsyncIterator[int]:
    server = Server(echo, header_timeout=patience)
    sock = http.listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    await server.serve(sock)
    try:
        yield port
    finally:
        await server.close()


async def talk(port: int, data: bytes, *, end: bool = True) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        if end:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def get(path: str, *rows: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: x", *rows, "", ""]).encode()


def test_several_requests_go_over_one_connection() -> None:
    async def scenario() -> None:
        async with served() as port:
            answer = await talk(port, get("/a?x=1&y=") + get("/b", "Connection: close") + get("/c"))
            assert answer.count(b"HTTP/1.1 200 OK") == 2
            assert b"GET /a {'x': '1', 'y': ''}" in answer
            assert b"/c" not in answer

    run(scenario)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/9.1\r\nhost: x\r\n\r\n", 505),
        (b"GET / JUNK\r\nhost: x\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n", 501),
        (b"get / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET http://x/ HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"y" * 9000 + b"\r\n\r\n", 431),
        (b"GET / HTT", 400),
    ],
)
def test_a_bad_request_gets_its_status_and_a_closed_connection(data: bytes, status: int) -> None:
    async def scenario() -> None:
        async with served() as port:
            answer = await talk(port, data)
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
            assert b"connection: close" in answer
            assert b"200 OK" in await talk(port, get("/still", "connection: close"))

    run(scenario)


def test_a_request_that_never_ends_is_timed_out() -> None:
    async def scenario() -> None:
        async with served(patience=0.05) as port:
            assert (await talk(port, b"GET / HTTP/1.1\r\nhost:", end=False)).startswith(b"HTTP/1.1 408 ")
            assert (await talk(port, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n", end=False)).startswith(
                b"HTTP/1.1 408 "
            )

    run(scenario)


def test_a_body_is_read_and_the_next_request_follows_it() -> None:
    async def scenario() -> None:
        async with served() as port:
            body = b"POST /p HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"
            answer = await talk(port, body + get("/next"))
            assert b"POST /p" in answer
            assert b"GET /next" in answer

    run(scenario)


def test_a_handler_that_fails_is_a_500_and_is_reported() -> None:
    async def scenario() -> None:
        reports: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reports.append(context["exception"]))
        async with served() as port:
            assert (await talk(port, get("/boom"))).startswith(b"HTTP/1.1 500 ")
        assert isinstance(reports[0], LookupError)

    run(scenario)


def test_a_stream_is_sent_in_chunks() -> None:
    async def scenario() -> None:
        async with served() as port:
            answer = await talk(port, get("/stream"))
            assert b"transfer-encoding: chunked" in answer
            assert answer.endswith(b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n")

    run(scenario)


def test_head_has_the_length_and_no_body() -> None:
    async def scenario() -> None:
        async with served() as port:
            answer = await talk(port, b"HEAD /h HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"content-length: " in answer
            assert answer.endswith(b"\r\n\r\n")

    run(scenario)


def test_too_many_connections_are_turned_away_and_the_server_lives_on() -> None:
    async def scenario() -> None:
        async with served(patience=5.0) as port:
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(http.CONNECTIONS + 4)]
            assert await idle[-1][0].read() == b""
            for _, writer in idle:
                writer.close()
                await writer.wait_closed()
            await asyncio.sleep(0)
            assert b"200 OK" in await talk(port, get("/", "connection: close"))

    run(scenario)


@given(st.binary(max_size=300))
def test_any_head_is_a_request_or_a_status(data: bytes) -> None:
    try:
        path, status = http.parse_head(data).path, 400
    except http.BadRequest as error:
        path, status = "/", error.status
    assert path.startswith("/")
    assert 400 <= status < 600
