"""The control plane's join service, from the machine's side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from ambient.errors import InvalidInput, MeshError, Refused, Unavailable

SERVER_NAME: Final = "istiod.istio-system.svc"
"""What every control plane's certificate names; machines reach it under addresses that none of them knows."""
_SERVICE: Final = "/ambient.join.v1.Join/"
_TIMEOUT_S: Final = 10.0
_KINDS: Final[Mapping[grpc.StatusCode, type[MeshError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.PERMISSION_DENIED: Refused,
}


class JoinClient:
    """Calls raise InvalidInput, Refused or Unavailable with the control plane's own words. Use as a context."""

    def __init__(self, control: str, root: str, *, token: str = "") -> None:
        """`control` is host:port, `root` PEM; `token` a session's."""
        self._control = control
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        options = (("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.enable_http_proxy", 0))
        credentials = grpc.ssl_channel_credentials(root.encode())
        self._channel = grpc.aio.secure_channel(control, credentials, options=options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close(None)

    async def call(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Join, Beat or Leave."""
        method = self._channel.unary_unary(_SERVICE + name, request_serializer=None, response_deserializer=None)
        try:
            answer = await method(json.dumps(body).encode(), metadata=self._metadata, timeout=_TIMEOUT_S)
            found: dict[str, Any] = json.loads(answer)
        except grpc.aio.AioRpcError as error:
            kind = _KINDS.get(error.code(), Unavailable)
            raise kind(f"control plane {self._control}", name, error.details() or error.code().name) from None
        except ValueError:
            raise Unavailable(f"control plane {self._control}", name, "its answer is not JSON") from None
        return found
