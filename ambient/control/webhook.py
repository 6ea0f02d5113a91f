"""The HTTPS server that the API server asks: POST /validate with an AdmissionReview, an AdmissionReview back.

It answers in milliseconds or not at all; what it does not understand it says so with an HTTP status, and the
configuration's failurePolicy decides.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from typing import Final

from aiohttp import web

from ambient.control.admission import review
from ambient.control.admission_checks import View
from ambient.control.log import LogLimit
from ambient.control.metrics import ControlMetrics
from ambient.errors import InvalidInput, Unavailable
from ambient.model.address import Endpoint

MOST_BYTES: Final = 8 << 20
"""An object of 1.5 MB (etcd's limit), its old version, and what is around them."""
MOST_AT_ONCE: Final = 16
PATIENCE_S: Final = 5.0
"""How long somebody may take to send a review. The API server itself waits no longer for the answer."""
PATHS: Final = ("/validate", "/validate/{rest:.*}")

_log = logging.getLogger("ambient.control.webhook")


class Webhook:
    """`view` is asked at each request."""

    def __init__(self, view: Callable[[], View], metrics: ControlMetrics, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._view = view
        self._metrics = metrics
        self._busy = 0
        self._runner: web.AppRunner | None = None
        self._loud = LogLimit(5)

    async def start(self, listen: Endpoint, context: ssl.SSLContext) -> int:
        """Listen and give the port; raises Unavailable when the address cannot be had."""
        app = web.Application(client_max_size=MOST_BYTES)
        for path in PATHS:
            app.router.add_post(path, self._serve)
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        host = None if str(listen.ip) == "::" else str(listen.ip)
        try:
            await web.TCPSite(self._runner, host, listen.port, ssl_context=context).start()
        except OSError as error:
            raise Unavailable("cannot listen", str(listen), error.strerror or str(error)) from None
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.Response:
        if self._busy >= MOST_AT_ONCE:
            return web.Response(status=503, text="too many reviews at once\n", headers={"Retry-After": "1"})
        self._busy += 1
        try:
            async with asyncio.timeout(self._patience_s):
                data = await request.read()
            body = json.loads(data)
            # Looking at every pod of a large cluster takes milliseconds, which belong to no event loop.
            answer = await asyncio.to_thread(review, body, self._view())
        except TimeoutError:
            return web.Response(status=408, text="not sent in time\n")
        except (ValueError, RecursionError) as error:
            return self._bad(f"not JSON: {error}")
        except InvalidInput as error:
            return self._bad(str(error))
        finally:
            self._busy -= 1
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
