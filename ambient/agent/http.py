"""A small HTTP/1.1 server for the agent's own pages: one request per connection, no body read, bounded everything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from ambient.errors import Unavailable
from ambient.model.address import Endpoint

_HEAD_LIMIT: Final = 8192
_DEADLINE_S: Final = 5.0
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Answer:
    body: str
    status: int = 200
    content_type: str = "application/json"


Handler = Callable[[Mapping[str, str]], Awaitable[Answer]]
"""Gets the query; the last of repeated keys counts."""


async def listen(at: Endpoint, routes: Mapping[tuple[str, str], Handler]) -> asyncio.Server:
    """Serve `routes` (by method and path) at an address; raises Unavailable. The caller closes the server."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_DEADLINE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                answer = await _answer(head.decode("latin-1"), routes)
                body = answer.body.encode()
                writer.write(
                    f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\ncontent-type: {answer.content_type}\r\n"
                    f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        writer.close()

    try:
        return await asyncio.start_server(serve, str(at.ip), at.port, limit=_HEAD_LIMIT)
    except OSError as error:
        raise Unavailable("cannot listen for HTTP", str(at), error.strerror or str(error)) from None


async def _answer(head: str, routes: Mapping[tuple[str, str], Handler]) -> Answer:
    words = head.partition("\r\n")[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return Answer("not an HTTP request\n", 400, "text/plain")
    url = urlsplit(words[1])
    handler = routes.get((words[0], url.path))
    if handler is not None:
        return await handler(dict(parse_qsl(url.query)))
    if any(path == url.path for _, path in routes):
        return Answer(f"{url.path} does not know {words[0]}\n", 405, "text/plain")
    pages = ", ".join(sorted(f"{method} {path}" for method, path in routes))
    return Answer(f"{url.path} is not here; there is {pages}\n", 404, "text/plain")
