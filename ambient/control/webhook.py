"""The HTTPS server that the API server asks: POST /validate with an AdmissionReview, an AdmissionReview back.

It answers in milliseconds or not at all; what it does not understand it says so with an HTTP status, and the
configuration's failurePolicy decides. Any pod can reach it, and where the API server gets no answer objects pass:
so nobody holds a connection without asking, and addresses share connections, memory and turns.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final

from aiohttp import web

from ambient.control.admission import review
from ambient.control.admission_checks import View
from ambient.control.fair import Guests, Turns
from ambient.control.metrics import ControlMetrics
from ambient.errors import InvalidInput, Unavailable
from ambient.log import LogLimit
from ambient.model.address import Endpoint

MOST_BYTES: Final = 8 << 20
"""An object of 1.5 MB (etcd's limit), its old version, and what is around them."""
MOST_PARTS: Final = 500_000
"""Of one body, about. What is not text takes thirty times its size in memory, and time that all share."""
MOST_AT_ONCE: Final = 16
MOST_CONNECTIONS: Final = 256
MOST_CONNECTIONS_EACH: Final = 64
LARGE_BYTES: Final = 256 << 10
MOST_LARGE: Final = 8
"""So many bodies that are larger than that, or may be, are in memory at once; a quarter of them of one address."""
PATIENCE_S: Final = 5.0
"""How long somebody may take to send a review. The API server itself waits no longer for the answer."""
PATHS: Final = ("/validate", "/validate/{rest:.*}")

_KEEPALIVE_S: Final = 30.0

_log = logging.getLogger("ambient.control.webhook")


class _Connection(web.RequestHandler):
    """One of somebody's connections; it is closed when no request has come on it in time."""

    __slots__ = ("address", "guests", "late", "patience_s")

    def __init__(self, manager: web.Server, guests: Guests[_Connection], patience_s: float) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(manager, loop=loop, keepalive_timeout=_KEEPALIVE_S, access_log=None)  # type: ignore[arg-type]
        self.guests = guests
        self.patience_s = patience_s
        self.address = ""
        self.late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        self.late = asyncio.get_running_loop().call_later(self.patience_s, self.turn_away)
        loser = self.guests.arrive(self.address, self)
        if loser is not None:
            loser.turn_away()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.guests.leave(self.address, self)
        self.asked()
        super().connection_lost(exc)

    def asked(self) -> None:
        """A request has come: from now on aiohttp's own time limits hold."""
        if self.late is not None:
            self.late.cancel()
            self.late = None

    def turn_away(self) -> None:
        if isinstance(self.transport, asyncio.Transport):
            self.transport.abort()


class Webhook:
    """`view` is asked at each request."""

    def __init__(self, view: Callable[[], View], metrics: ControlMetrics, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._view = view
        self._metrics = metrics
        self._guests: Guests[_Connection] = Guests(MOST_CONNECTIONS, MOST_CONNECTIONS_EACH)
        self._turns = Turns(MOST_AT_ONCE, MOST_AT_ONCE // 2)
        self._large = Turns(MOST_LARGE, MOST_LARGE // 4)
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._loud = LogLimit(5)

    async def start(self, listen: Endpoint, context: ssl.SSLContext) -> int:
        """Listen and give the port; raises Unavailable when the address cannot be had."""
        app = web.Application(client_max_size=MOST_BYTES)
        for path in PATHS:
            app.router.add_post(path, self._serve)
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None
        host = None if str(listen.ip) == "::" else str(listen.ip)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Connection(manager, self._guests, self._patience_s),
                host,
                listen.port,
                ssl=context,
                ssl_handshake_timeout=self._patience_s,
            )
        except OSError as error:
            raise Unavailable("cannot listen", str(listen), error.strerror or str(error)) from None
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.Response:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        connection.asked()
        length = request.content_length
        large = length is None or length > LARGE_BYTES
        try:
            async with self._large.of(connection.address) if large else nullcontext():
                async with asyncio.timeout(self._patience_s):
                    raw = await request.read()
                if sum(map(raw.count, (b",", b"{", b"["))) > MOST_PARTS:
                    return self._bad("too many parts")
                body = json.loads(raw)
                async with self._turns.of(connection.address):
                    # Looking at every pod of a large cluster takes milliseconds, which belong to no event loop.
                    answer = await asyncio.to_thread(review, body, self._view())
        except TimeoutError:
            return web.Response(status=408, text="not sent in time\n")
        except (ValueError, RecursionError) as error:
            return self._bad(f"not JSON: {error}")
        except InvalidInput as error:
            return self._bad(str(error))
        self._count(body, answer)
        return web.json_response(answer)

    def _bad(self, why: str) -> web.Response:
        self._metrics.reviews.labels("", "unreadable").inc()
        return web.Response(status=400, text=f"{why}\n")

    def _count(self, body: dict[str, object], answer: dict[str, dict[str, object]]) -> None:
        response = answer["response"]
        content = body["request"].get("object") if isinstance(body["request"], dict) else None
        known = self._metrics.reviewed_kind(content.get("kind") if isinstance(content, dict) else None)
        verdict = "allowed" if response["allowed"] else "refused"
        self._metrics.reviews.labels(
            known, "warned" if verdict == "allowed" and "warnings" in response else verdict
        ).inc()
        if not response["allowed"] and self._loud.allows(asyncio.get_running_loop().time()):
            status = response["status"]
            message = status.get("message") if isinstance(status, dict) else ""
            _log.info("refused %s%s", message, self._loud.note())
