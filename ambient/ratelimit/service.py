"""Envoy's RateLimitService, version 3: each call is counted, and what cannot be counted is an error of the call.

What then becomes of the request is decided by the proxy, as the limit's owner chose.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from ambient.errors import InvalidInput, MeshError, Unavailable
from ambient.log import LogLimit
from ambient.ratelimit.asked import METHOD, REQUEST, RESPONSE, Asked, Counted, read_request, response
from ambient.ratelimit.metrics import Metrics

_LINES: Final = 5
"""A second, about calls that failed."""

_log = logging.getLogger("ambient.ratelimit")


class Counter(Protocol):
    async def count(self, asked: Sequence[Asked], hits: int) -> tuple[Counted, ...]:
        """Raises Unavailable or ProtocolError."""


class RateLimitService:
    """`handler` is for a gRPC server."""

    def __init__(self, counts: Counter, metrics: Metrics) -> None:
        self._counts = counts
        self._metrics = metrics
        self._lines = LogLimit(_LINES)

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        method = grpc.unary_unary_rpc_method_handler(
            self._should_rate_limit,
            request_deserializer=REQUEST.FromString,
            response_serializer=RESPONSE.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(METHOD[0], {METHOD[1]: method})

    async def _should_rate_limit(self, message: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            asked, hits = read_request(message)
            started = time.perf_counter()
            counted = await self._counts.count(asked, hits)
            self._metrics.redis_seconds.observe(time.perf_counter() - started)
        except InvalidInput as error:
            self._failed("request", error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except MeshError as error:
            self._failed("unavailable" if isinstance(error, Unavailable) else "answer", error)
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.what)
        except Exception as error:
            _log.exception("a request could not be counted")
            self._metrics.error("defect")
            await context.abort(grpc.StatusCode.INTERNAL, type(error).__name__)
        over = any(one.over for one in counted)
        self._metrics.requests.labels("denied" if over else "allowed").inc()
        return response(asked, counted)

    def _failed(self, reason: str, error: MeshError) -> None:
        self._metrics.error(reason)
        if self._lines.allows(time.monotonic()):
            _log.error("not counted: %s%s", error, self._lines.note())
