"""The service over real gRPC: what is counted is answered, what is not is an error of the call, and all is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from ambient.errors import ProtocolError, Unavailable
from ambient.ratelimit.asked import METHOD, REQUEST, RESPONSE, Asked, Counted
from ambient.ratelimit.metrics import Metrics
from ambient.ratelimit.service import RateLimitService
from tests.support.limit_requests import ask, limit


class Counts:
    """Answers with what it was given, or raises it."""

    def __init__(self, answer: tuple[Counted, ...] | Exception) -> None:
        self._answer = answer

    async def count(self, asked: Sequence[Asked], hits: int) -> tuple[Counted, ...]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def call(answer: tuple[Counted, ...] | Exception, message: Any) -> tuple[Any, str]:
    """What a proxy gets, a response or a status, and the metrics then."""

    async def scenario() -> tuple[Any, str]:
        metrics = Metrics()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((RateLimitService(Counts(answer), metrics).handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                method = channel.unary_unary(
                    f"/{METHOD[0]}/{METHOD[1]}",
                    request_serializer=REQUEST.SerializeToString,
                    response_deserializer=RESPONSE.FromString,
                )
                try:
                    return await method(message), metrics.render().decode()
                except grpc.aio.AioRpcError as error:
                    return error.code(), metrics.render().decode()
        finally:
            await server.stop(None)

    return asyncio.run(scenario())


def test_who_is_within_his_limit_is_allowed_and_who_is_over_it_denied() -> None:
    said, metrics = call((Counted(4, 100, over=False),), ask(limit()))
    assert (said.overall_code, said.statuses[0].limit_remaining) == (1, 4)
    assert 'requests_total{result="allowed"} 1.0' in metrics
    assert "ambient_ratelimit_redis_seconds_count 1.0" in metrics
    said, metrics = call((Counted(0, 100, over=True),), ask(limit()))
    assert said.overall_code == 2
    assert 'requests_total{result="denied"} 1.0' in metrics


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (Unavailable("Redis", why="gone"), grpc.StatusCode.UNAVAILABLE, "unavailable"),
        (ProtocolError("Redis", why="garbage"), grpc.StatusCode.UNAVAILABLE, "answer"),
        (KeyError("ours"), grpc.StatusCode.INTERNAL, "defect"),
    ],
)
def test_what_cannot_be_counted_is_an_error_and_never_an_answer(
    answer: Exception, status: grpc.StatusCode, reason: str
) -> None:
    said, metrics = call(answer, ask(limit()))
    assert said == status
    assert f'errors_total{{reason="{reason}"}} 1.0' in metrics
    assert 'requests_total{result="error"} 1.0' in metrics


def test_what_is_not_understood_is_an_error_too() -> None:
    said, metrics = call((Counted(4, 100, over=False),), ask(limit("5/7")))
    assert said == grpc.StatusCode.INVALID_ARGUMENT
    assert 'errors_total{reason="request"} 1.0' in metrics
