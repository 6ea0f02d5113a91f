"""The client of IstioCertificateService/CreateCertificate (interop 3.1). It moves CSRs and chains, checks nothing."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import grpc
import grpc.aio

from ambient.errors import MeshError, Refused, Unavailable
from ambient.xds.wire import message
from ztunnel.config import Config
from ztunnel.director.credentials import metadata, open_channel, read_token

METHOD: Final = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
TIMEOUT_S: Final = 10.0

_REFUSALS: Final = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT}
)


class CaClient:
    """One channel, opened at the first request and again after a failure (the root file may have changed)."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._channel: grpc.aio.Channel | None = None

    async def sign(self, identity: str, csr_pem: str) -> list[str]:
        """The chain for a CSR: leaf, intermediates, root bundle. Raises Refused or Unavailable."""
        config = self._config
        try:
            if self._channel is None:
                self._channel = await open_channel(config.ca_address, config.ca_root_ca, config.alt_ca_hostname)
            call: Any = self._channel.unary_unary(METHOD, _write, _read)
            request = message("istio.v1.auth.IstioCertificateRequest")(
                csr=csr_pem, validity_duration=config.secret_ttl_s
            )
            request.metadata.update({"ImpersonatedIdentity": identity})
            headers = metadata(read_token(config.auth_token), config.cluster_id)
            response = await call(request, metadata=headers, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            await self._reset()
            kind: type[MeshError] = Refused if error.code() in _REFUSALS else Unavailable
            raise kind("no certificate", config.ca_address, f"{error.code().name}: {error.details()}") from None
        return list(response.cert_chain)

    async def close(self) -> None:
        """Close the channel."""
        await self._reset()

    async def _reset(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(grpc.aio.UsageError):
                await channel.close(grace=TIMEOUT_S)


def _write(request: Any) -> bytes:
    return bytes(request.SerializeToString())


def _read(data: bytes) -> Any:
    return message("istio.v1.auth.IstioCertificateResponse").FromString(data)
