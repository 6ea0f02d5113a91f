"""The rate limit service's process: gRPC for proxies, HTTP for readiness and metrics, run until a signal.

It listens in plain text: its pod is of the mesh, so who reaches it came by mTLS. It is ready while Redis answers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import grpc
import grpc.aio

from ambient.errors import MeshError, Unavailable
from ambient.http import HttpServer, Page
from ambient.log import set_up_logging
from ambient.ratelimit.counting import Counts
from ambient.ratelimit.metrics import Metrics
from ambient.ratelimit.service import RateLimitService
from ambient.ratelimit.settings import RateLimitSettings, read_rate_limit_settings

_LOOK_S: Final = 1.0
_MOST_CALLS: Final = 4096
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 64 << 10),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)
_EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"

_log = logging.getLogger("ambient.ratelimit")


class RateLimitServer:
    """`start`, then `run` until cancelled, then `stop`. The ports are in `port` and `http_port`."""

    def __init__(self, settings: RateLimitSettings, *, look_s: float = _LOOK_S) -> None:
        """`look_s`: how often Redis is looked at, in seconds."""
        self._settings = settings
        self._look_s = look_s
        self.metrics = Metrics()
        self._counts = Counts(
            settings.redis,
            timeout_s=settings.timeout_s,
            connections=settings.connections,
            username=settings.username,
            password=settings.password,
            authorities=settings.authorities,
        )
        self._trouble = "Redis was not asked yet"
        self._http = HttpServer(
            {
                "/ready": self._ready,
                "/live": lambda: Page(b"ok\n"),
                "/metrics": lambda: Page(self.metrics.render(), _EXPOSITION),
            }
        )
        self._grpc = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_MOST_CALLS)
        self._grpc.add_generic_rpc_handlers((RateLimitService(self._counts, self.metrics).handler(),))
        self.port = self.http_port = 0

    async def start(self) -> None:
        """Raises Unavailable when an address cannot be had."""
        self.http_port = await self._http.start(self._settings.http_listen)
        try:
            self.port = self._grpc.add_insecure_port(str(self._settings.listen))
        except RuntimeError:
            self.port = 0
        if not self.port:
            await self._http.stop()
            raise Unavailable("cannot listen", str(self._settings.listen), "is it free?")
        await self._grpc.start()
        _log.info("counting in %s for proxies on port %d", self._settings.redis, self.port)

    async def run(self) -> None:
        """Looks at Redis now and then, until cancelled."""
        while True:
            before = self._trouble
            try:
                await self._counts.ping()
                self._trouble = ""
            except MeshError as error:
                self._trouble = str(error)
            self.metrics.redis_up.set(not self._trouble)
            if bool(self._trouble) != bool(before):
                _log.log(
                    logging.ERROR if self._trouble else logging.INFO,
                    "Redis %s",
                    f"cannot count: {self._trouble}" if self._trouble else "answers",
                )
            await asyncio.sleep(self._look_s)

    async def stop(self) -> None:
        """Calls that are under way have `drain_s` to end."""
        self._trouble = "ending"
        await self._grpc.stop(self._settings.drain_s)
        await self._http.stop()
        await self._counts.close()

    def _ready(self) -> Page:
        if self._trouble:
            return Page(f"{self._trouble}\n".encode(), status=HTTPStatus.SERVICE_UNAVAILABLE)
        return Page(b"ok\n")


async def serve(settings: RateLimitSettings) -> None:
    """Until SIGTERM or SIGINT; raises MeshError when it cannot start."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        if task is not None:
            loop.add_signal_handler(number, task.cancel)
    server = RateLimitServer(settings)
    await server.start()
    try:
        with suppress(asyncio.CancelledError):
            await server.run()
    finally:
        await server.stop()


def main() -> int:
    """0: told to end; 1: could not start; 2: wrong settings."""
    logging.basicConfig()
    try:
        settings = read_rate_limit_settings(os.environ)
    except MeshError as error:
        _log.critical("%s", error)
        return 2
    set_up_logging(settings.log_format, settings.log_level)
    try:
        asyncio.run(serve(settings))
    except MeshError as error:
        _log.critical("%s", error)
        return 1
    return 0
