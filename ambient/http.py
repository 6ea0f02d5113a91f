"""A small HTTP/1.1 server for a few GET pages: readiness, metrics, synchronisation. asyncio only.

One request per connection, bounded in size, time and number; anything else is refused. No authentication: it must not
carry secrets, and carries none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from ambient.errors import Unavailable
from ambient.model.address import Endpoint

MOST_HEADER_BYTES: Final = 8 * 1024
DEADLINE_S: Final = 5.0
MOST_CONNECTIONS: Final = 128


@dataclass(frozen=True, slots=True)
class Page:
    """An answer. `kind` is its content type."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


class HttpServer:
    """Serves `pages` by path. A page is made anew for each request."""

    def __init__(self, pages: Mapping[str, Callable[[], Page | Awaitable[Page]]]) -> None:
        self._pages = pages
        self._open: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    async def start(self, listen: Endpoint) -> int:
        """Listen and give the port; raises Unavailable when the address cannot be had."""
        host = None if str(listen.ip) == "::" else str(listen.ip)
        try:
            server = await asyncio.start_server(self._serve, host, listen.port, limit=MOST_HEADER_BYTES)
        except OSError as error:
            raise Unavailable("cannot listen", str(listen), error.strerror or str(error)) from None
        self._server = server
        return int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close everything; connections in the middle of an answer are cut."""
        if self._server is None:
            return
        self._server.close()
        await self._server.wait_closed()
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*(task for task in self._open if task is not None), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        self._open[task] = writer
        try:
            async with asyncio.timeout(DEADLINE_S):
                page, head_only = await self._answer(reader)
                writer.write(_render(page, head_only=head_only))
                await writer.drain()
        except (TimeoutError, OSError):
            pass
        finally:
            del self._open[task]
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[Page, bool]:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return _error(HTTPStatus.BAD_REQUEST), False
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _error(HTTPStatus.BAD_REQUEST), False
        if words[0] not in ("GET", "HEAD"):
            return _error(HTTPStatus.METHOD_NOT_ALLOWED), False
        make = self._pages.get(words[1].partition("?")[0])
        made = make() if make is not None else _error(HTTPStatus.NOT_FOUND)
        return (made if isinstance(made, Page) else await made), words[0] == "HEAD"


def _error(status: HTTPStatus) -> Page:
    return Page(f"{status.phrase}\n".encode(), status=status)


def _render(page: Page, *, head_only: bool) -> bytes:
    head = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\nContent-Type: {page.kind}\r\n"
        f"Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if head_only else page.body)
