"""The client of IstioCertificateService/CreateCertificate (interop 3.1). It moves CSRs and chains, checks nothing."""

from __future__ import annotations

from typing import Any, Final

from ambient.xds.channel import ServerSettings, as_mesh_error, call_metadata, connected, open_channel
from ambient.xds.wire import message

METHOD: Final = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
TIMEOUT_S: Final = 10.0


class CaClient:
    """`sign` opens a channel per request: they are rare, and root and token may have been replaced meanwhile."""

    def __init__(self, server: ServerSettings, ttl_s: int) -> None:
        self._server = server
        self._ttl_s = ttl_s

    async def sign(self, identity: str, csr_pem: str) -> list[str]:
        """The chain for a CSR: leaf, intermediates, root bundle. Raises Refused or Unavailable."""
        from grpc.aio import AioRpcError

        request = message("istio.v1.auth.IstioCertificateRequest")(csr=csr_pem, validity_duration=self._ttl_s)
        request.metadata.update({"ImpersonatedIdentity": identity})
        channel = open_channel(self._server)
        try:
            await connected(channel, self._server.target)
            call: Any = channel.unary_unary(METHOD, request_serializer=_write, response_deserializer=_read)
            response = await call(request, metadata=tuple(call_metadata(self._server)), timeout=TIMEOUT_S)
        except AioRpcError as error:
            raise as_mesh_error(error, "no certificate", self._server.target) from None
        finally:
            await channel.close(None)
        return list(response.cert_chain)


def _write(request: Any) -> bytes:
    return bytes(request.SerializeToString())


def _read(data: bytes) -> Any:
    return message("istio.v1.auth.IstioCertificateResponse").FromString(data)
