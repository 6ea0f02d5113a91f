"""The join service on the wire: three unary gRPC calls beside discovery and CA, under the same TLS; bodies are JSON.

/ambient.join.v1.Join/Join     a ticket's parts and an address -> who the machine is, its session
/ambient.join.v1.Join/Beat     (session) {"why": "", "captured": true} -> {}
/ambient.join.v1.Join/Leave    (session) {} -> {}
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
import grpc.aio

from ambient.control.access import peer_of
from ambient.control.join import Joins
from ambient.errors import InvalidInput, MeshError, Refused, Unavailable
from ambient.log import LogLimit

SERVICE: Final = "ambient.join.v1.Join"
_MOST_BYTES: Final = 16 * 1024
_CODES: Final = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    Refused: grpc.StatusCode.PERMISSION_DENIED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}
_Body = Mapping[str, Any]

_log = logging.getLogger("ambient.control.join")


class JoinService:
    def __init__(self, joins: Joins) -> None:
        self._joins = joins
        self._loud = LogLimit(10)

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What to register with a grpc.aio server."""
        calls = {"Join": self._join, "Beat": self._beat, "Leave": self._leave}
        methods = {name: grpc.unary_unary_rpc_method_handler(self._serving(call)) for name, call in calls.items()}
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _serving(self, call: Callable[[_Body, str], Awaitable[_Body]]) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def serve(data: bytes, context: Any) -> bytes:
            try:
                answer = await call(_decoded(data), _bearer(context))
            except MeshError as error:
                if self._loud.allows(time.monotonic()):
                    _log.warning("refused %s: %s%s", peer_of(context), error, self._loud.note())
                code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
                await context.abort(code or grpc.StatusCode.INTERNAL, str(error))
                raise
            return json.dumps(answer).encode()

        return serve

    async def _join(self, body: _Body, _token: str) -> _Body:
        return await self._joins.join(body)

    async def _beat(self, body: _Body, token: str) -> _Body:
        why, captured = body.get("why", ""), body.get("captured", False)
        if not isinstance(why, str) or not isinstance(captured, bool):
            raise InvalidInput("beat", why="`why` is a text, `captured` is true or false")
        await self._joins.beat(token, why=why, captured=captured)
        return {}

    async def _leave(self, _body: _Body, token: str) -> _Body:
        await self._joins.leave(token)
        return {}


def _decoded(data: bytes) -> _Body:
    try:
        body = json.loads(data) if len(data) <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InvalidInput("request", why=f"expected a JSON object of at most {_MOST_BYTES} bytes")
    return body


def _bearer(context: Any) -> str:
    given = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    text = given[0] if len(given) == 1 and isinstance(given[0], str) else ""
    scheme, _, token = text.partition(" ")
    return token if scheme.lower() == "bearer" else ""
