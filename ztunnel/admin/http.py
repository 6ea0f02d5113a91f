"""A small HTTP/1.1 server for the admin, stats and readiness ports: GET and POST without a body worth reading.

Header read timeout 2 s and 8 KiB (interop 7.1); whatever is malformed gets a proper answer and a closed connection.
It knows no routes; a `Handler` answers requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, urlsplit

HEADER_TIMEOUT_S: Final = 2.0
HEADER_LIMIT: Final = 8 << 10
BODY_LIMIT: Final = 64 << 10
CONNECTIONS: Final = 64
"""Connections at a time per server; more are closed at once."""
WRITE_TIMEOUT_S: Final = 30.0

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"})


@dataclass(frozen=True, slots=True)
class Request:
    """`query`: pairs in order, blank values kept. Header names are lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Response:
    """`body` whole, or `stream` chunk by chunk (then `body` is ignored)."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()
    stream: AsyncIterator[bytes] | None = None


Handler = Callable[[Request], Awaitable[Response]]


class BadRequest(Exception):
    """The request cannot be answered in any other way than by this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def text(status: int, body: str) -> Response:
    """A plain text answer."""
    return Response(status, body.encode())


def listen(host: str, port: int, *, dual: bool = False) -> socket.socket:
    """A listening TCP socket; `dual`: an IPv6 wildcard that takes IPv4 too. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind((host, port))
        sock.listen(CONNECTIONS)
    except OSError:
        sock.close()
        raise
    return sock


class Server:
    """Serves one handler on some listening sockets until `close`."""

    def __init__(self, handler: Handler, *, header_timeout: float = HEADER_TIMEOUT_S) -> None:
        self._handler = handler
        self._timeout = header_timeout
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, sock: socket.socket) -> None:
        """Begin to accept on `sock`, which is owned by the server from here on."""
        self._servers.append(await asyncio.start_server(self._connection, sock=sock, limit=HEADER_LIMIT))

    async def close(self) -> None:
        """Stop accepting and drop open connections."""
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= CONNECTIONS:
            writer.close()
            return
        self._tasks.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False when the connection ends after it."""
        try:
            async with asyncio.timeout(self._timeout):
                request = parse_head(await reader.readuntil(b"\r\n\r\n"))
                await _skip_body(reader, request)
        except asyncio.LimitOverrunError:
            await _send(writer, text(431, "request header too large\n"), "GET", keep=False)
            return False
        except TimeoutError:
            await _send(writer, text(408, "request timed out\n"), "GET", keep=False)
            return False
        except asyncio.IncompleteReadError as error:
            if error.partial.strip():
                await _send(writer, text(400, "bad request\n"), "GET", keep=False)
            return False
        except BadRequest as error:
            await _send(writer, text(error.status, HTTPStatus(error.status).phrase + "\n"), "GET", keep=False)
            return False
        try:
            response = await self._handler(request)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"serving {request.path}", "exception": error}
            )
            response = text(500, "internal error\n")
        keep = request.headers.get("connection", "").lower() != "close" and request.headers[":version"] == "HTTP/1.1"
        await _send(writer, response, request.method, keep=keep)
        return keep


def parse_head(head: bytes) -> Request:
    """A request from its bytes up to the empty line. Raises BadRequest with the status to answer."""
    try:
        line, *rows = head.decode("ascii").removesuffix("\r\n\r\n").lstrip("\r\n").split("\r\n")
        method, target, version = line.split(" ")
    except ValueError:
        raise BadRequest(400) from None
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest(505 if version.startswith("HTTP/") else 400)
    if method not in _METHODS:
        raise BadRequest(501 if method.isalpha() and method.isupper() else 400)
    headers = {":version": version}
    for row in rows:
        name, colon, value = row.partition(":")
        if not colon or not name or not name.isprintable() or " " in name or "\t" in name:
            raise BadRequest(400)
        name = name.lower()
        if name in headers and name in ("host", "content-length", "transfer-encoding"):
            raise BadRequest(400)
        headers[name] = value.strip()
    if version == "HTTP/1.1" and "host" not in headers:
        raise BadRequest(400)
    if not target.startswith("/") or any(character < "!" for character in target):
        raise BadRequest(400)
    parts = urlsplit("//x" + target)
    return Request(method, parts.path, tuple(parse_qsl(parts.query, keep_blank_values=True)), headers)


async def _skip_body(reader: asyncio.StreamReader, request: Request) -> None:
    if "transfer-encoding" in request.headers:
        raise BadRequest(501)
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or len(length) > 9:
        raise BadRequest(400)
    if int(length) > BODY_LIMIT:
        raise BadRequest(413)
    await reader.readexactly(int(length))


async def _send(writer: asyncio.StreamWriter, response: Response, method: str, *, keep: bool) -> None:
    status = HTTPStatus(response.status)
    rows = [f"HTTP/1.1 {status.value} {status.phrase}", f"content-type: {response.content_type}"]
    rows += [f"{name}: {value}" for name, value in response.headers]
    if response.stream is None:
        rows.append(f"content-length: {len(response.body)}")
    else:
        rows.append("transfer-encoding: chunked")
    if not keep:
        rows.append("connection: close")
    rows.append(f"date: {formatdate(usegmt=True)}")
    writer.write(("\r\n".join(rows) + "\r\n\r\n").encode())
    if method != "HEAD":
        if response.stream is None:
            writer.write(response.body)
        else:
            await _send_chunks(writer, response.stream)
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        await writer.drain()


async def _send_chunks(writer: asyncio.StreamWriter, stream: AsyncIterator[bytes]) -> None:
    async for chunk in stream:
        if chunk:
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        # A follower that went away is noticed at the next chunk; empty ones make it notice without data.
        if writer.transport.is_closing():
            return
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await writer.drain()
    writer.write(b"0\r\n\r\n")
