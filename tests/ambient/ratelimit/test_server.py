"""The rate limit service's process: ready while Redis answers, ended by a signal, and its pages."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from ambient.ratelimit.server import RateLimitServer
from ambient.ratelimit.settings import read_rate_limit_settings

LOOPBACK = {"AMBIENT_RATELIMIT_LISTEN": "127.0.0.1:0", "AMBIENT_RATELIMIT_HTTP_LISTEN": "127.0.0.1:0"}


@asynccontextmanager
async def running(redis: str) -> AsyncIterator[RateLimitServer]:
    settings = read_rate_limit_settings({"AMBIENT_REDIS": redis, "AMBIENT_REDIS_TIMEOUT": "20s", **LOOPBACK})
    server = RateLimitServer(settings, look_s=0.01)
    await server.start()
    task = asyncio.create_task(server.run())
    try:
        yield server
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await server.stop()


async def page(server: RateLimitServer, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return int(answer.split(" ", 2)[1]), answer


async def turns(server: RateLimitServer, status: int) -> None:
    """Until it is ready, or not."""
    while (await page(server, "/ready"))[0] != status:
        pass


def test_it_is_ready_while_redis_answers_and_lives_in_any_case() -> None:
    async def scenario() -> None:
        answer = [b"+PONG\r\n"]

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while (asked := await reader.read(4096)) and answer[0]:
                # Clients introduce themselves before they ask.
                writer.write(answer[0] if b"PING" in asked else b"+OK\r\n" * asked.count(b"*"))
            writer.close()

        redis = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = redis.sockets[0].getsockname()[1]
        async with running(f"redis://127.0.0.1:{port}") as server:
            await turns(server, 200)
            assert "ambient_ratelimit_redis_up 1.0" in (await page(server, "/metrics"))[1]
            answer[0] = b""
            await turns(server, 503)
            assert (await page(server, "/live"))[0] == 200
            assert "ambient_ratelimit_redis_up 0.0" in (await page(server, "/metrics"))[1]
            answer[0] = b"+PONG\r\n"
            await turns(server, 200)
        redis.close()

    asyncio.run(asyncio.wait_for(scenario(), 100))


def test_before_redis_was_asked_it_is_not_ready() -> None:
    async def scenario() -> None:
        async with running("redis://127.0.0.1:1") as server:
            assert (await page(server, "/ready"))[0] == 503

    asyncio.run(scenario())


def test_the_process_ends_when_it_is_told_and_says_what_is_wrong_with_its_settings() -> None:
    argv = [sys.executable, "-m", "ambient.ratelimit"]
    environment = {**os.environ, **LOOPBACK}
    wrong = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (wrong.returncode, "AMBIENT_REDIS" in wrong.stderr) == (2, True)
    environment["AMBIENT_REDIS"] = "redis://127.0.0.1:1"
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) == 0
    assert '"msg": "counting in redis://127.0.0.1:1' in first
