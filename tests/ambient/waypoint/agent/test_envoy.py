"""What Envoy's admin interface says is read whole, in whichever form it comes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ambient.waypoint.agent.envoy import Envoy

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (HEAD + b"content-length: 7\r\n\r\nx.y: 0\n", "x.y: 0\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nx.y: \r\n2;a=b\r\n0\n\r\n0\r\n\r\n", "x.y: 0\n"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", ""),
    ],
    ids=["by length", "in chunks", "nothing"],
)
def test_an_answer(tmp_path: Path, answer: bytes, body: str) -> None:
    async def scenario() -> None:
        envoy = Envoy(Path("envoy"), tmp_path, threads=1, drain_s=1)

        async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_unix_server(reply, envoy.admin_socket)
        async with server:
            assert await envoy.ask("GET", "/stats") == body

    asyncio.run(scenario())
