"""The agent's small HTTP server answers what it knows and survives what it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from ambient.agent.http import Answer, listen
from ambient.errors import Unavailable
from ambient.model.address import Endpoint, parse_endpoint

ANYWHERE = Endpoint(parse_endpoint("127.0.0.1:1").ip, 0)


async def echo(query: Mapping[str, str]) -> Answer:
    return Answer(str(sorted(query.items())))


async def ask(request: bytes) -> bytes:
    server = await listen(ANYWHERE, {("GET", "/echo"): echo})
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (b"GET /echo?a=1&b=x%2Fy HTTP/1.1\r\nhost: a\r\n\r\n", b"200", b"[('a', '1'), ('b', 'x/y')]"),
        (b"GET /echo HTTP/1.0\r\n\r\n", b"200", b"[]"),
        (b"POST /echo HTTP/1.1\r\n\r\n", b"405", b"does not know POST"),
        (b"GET /other HTTP/1.1\r\n\r\n", b"404", b"there is GET /echo"),
        (b"HELO me\r\n\r\n", b"400", b"not an HTTP request"),
    ],
)
def test_answers(request_: bytes, status: bytes, body: bytes) -> None:
    answer = asyncio.run(ask(request_))
    assert answer.split()[1] == status
    assert body in answer


@pytest.mark.parametrize("request_", [b"", b"GET /echo", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"])
def test_what_is_no_whole_request_gets_no_answer(request_: bytes) -> None:
    assert asyncio.run(ask(request_)) == b""


def test_an_address_that_is_taken_is_reported() -> None:
    async def body() -> None:
        async with await listen(ANYWHERE, {}) as server:
            host, port = server.sockets[0].getsockname()
            with pytest.raises(Unavailable, match="cannot listen"):
                await listen(parse_endpoint(f"{host}:{port}"), {})

    asyncio.run(body())
