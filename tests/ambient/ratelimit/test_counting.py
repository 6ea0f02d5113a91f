"""Redis that is slow, gone, or answers what is no answer: an error in good time, whatever it is."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import connection

from ambient.errors import MeshError, ProtocolError, Unavailable
from ambient.ratelimit.asked import Asked
from ambient.ratelimit.counting import Counts
from tests.support.tunnel_certs import Authority

LIMIT = Asked("key", 5, 60)


def answered(answer: bytes, ask: Any = None, **more: Any) -> Any:
    """What comes of a question to a Redis that says this to everything; b"": nothing at all."""

    async def scenario() -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(4096):
                writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        counts = Counts(f"redis://127.0.0.1:{port}", timeout_s=more.pop("timeout_s", 20), **more)
        try:
            question: Coroutine[Any, Any, Any] = ask(counts) if ask else counts.count([LIMIT], 1)
            return await question
        finally:
            await counts.close()
            server.close()

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n",
        b"*2\r\n:1\r\n:2\r\n",
        b"*3\r\n:1\r\n:2\r\n+x\r\n",
        b"*3\r\n:-1\r\n:2\r\n:0\r\n",
        b"*3\r\n:1\r\n:60001\r\n:0\r\n",
        b"*3\r\n:1\r\n:2\r\n:2\r\n",
        b"$-1\r\n",
        b"-ERR wrong\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\xfe\xfd\r\n",
        b":x\r\n",
    ],
)
def test_what_is_no_answer_is_an_error(answer: bytes) -> None:
    with pytest.raises(MeshError):
        answered(answer)


def test_a_redis_that_is_still_loading_or_full_is_an_error() -> None:
    for said in (b"-LOADING Redis is loading\r\n", b"-OOM command not allowed\r\n", b"-READONLY You can't write\r\n"):
        with pytest.raises(MeshError):
            answered(said)


def test_one_that_says_nothing_is_not_waited_for() -> None:
    with pytest.raises(Unavailable, match="no answer within"):
        answered(b"", timeout_s=0.05)


def test_one_that_is_not_there_is_an_error() -> None:
    async def scenario() -> None:
        counts = Counts("redis://127.0.0.1:1", timeout_s=20)
        try:
            await counts.ping()
        finally:
            await counts.close()

    with pytest.raises(Unavailable):
        asyncio.run(scenario())


def test_a_ping_wants_its_pong() -> None:
    with pytest.raises(ProtocolError):
        answered(b":5\r\n", lambda counts: counts.ping())


def test_without_the_password_nothing_is_asked(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"):
        answered(b"+OK\r\n", password=tmp_path / "gone")


@pytest.mark.parametrize(("host", "good"), [("127.0.0.1", True), ("localhost", False)])
def test_over_tls_it_proves_the_name_it_was_asked_by_whatever_the_client_demands_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, good: bool
) -> None:
    """Clients before 6.0 demand no more than a good certificate."""

    class Older(connection.SSLConnection):
        def __init__(self, ssl_check_hostname: bool = False, **more: Any) -> None:
            super().__init__(ssl_check_hostname=ssl_check_hostname, **more)

    monkeypatch.setattr(connection, "SSLConnection", Older)
    authority = Authority()
    roots, own = tmp_path / "roots.pem", tmp_path / "own.pem"
    roots.write_text(authority.roots)
    own.write_bytes(authority.leaf((), dns=("redis.example.com",)))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own)

    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while words := await reader.read(4096):
                writer.write(b"+PONG\r\n" if b"PING" in words else b"+OK\r\n" * words.count(b"*"))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        counts = Counts(f"rediss://{host}:{port}", timeout_s=20, authorities=roots)
        try:
            await counts.ping()
        finally:
            await counts.close()
            server.close()

    if good:
        asyncio.run(scenario())
    else:
        with pytest.raises(Unavailable, match="ertificate"):
            asyncio.run(scenario())
