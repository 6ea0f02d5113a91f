"""A stand-in for cert-manager's istio-csr: Istio's CA protocol over TLS, in front of an authority of its own.

It signs what is asked for by whoever has the token that it knows; the last element of its answer is the root.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from ambient.ca.csr import parse_csr
from ambient.ca.issue import issue, issue_server
from ambient.ca.roots import load_authority, make_root
from ambient.xds.channel import ServerSettings
from ambient.xds.wire import message

NAME = "cert-manager-istio-csr.cert-manager.svc"


class IstioCsr:
    """`root` is its root; `serving(folder, names)` puts a server certificate of it there, as cert-manager would."""

    def __init__(self, folder: Path, token: str) -> None:
        now = datetime.now(UTC)
        self.root, key = make_root(now, "cert-manager")
        self._authority = load_authority({"root-cert.pem": self.root.encode(), "root-key.pem": key.encode()}, now)
        self._folder = folder
        self._token = token
        (folder / "outside-root.pem").write_text(self.root)
        (folder / "outside-token").write_text(token)
        self.port = 0

    def serving(self, folder: Path, *names: str) -> None:
        issued, key = issue_server(self._authority, names, [], datetime.now(UTC), timedelta(hours=1))
        (folder / "tls.crt").write_text(issued.chain[0])
        (folder / "tls.key").write_text(key)

    def client(self) -> ServerSettings:
        """What CA_ADDRESS, CA_ROOT_CA and AUTH_TOKEN say to a ztunnel."""
        return ServerSettings(
            target=f"127.0.0.1:{self.port}",
            root=self._folder / "outside-root.pem",
            token=self._folder / "outside-token",
            hostname=NAME,
        )

    async def __aenter__(self) -> IstioCsr:
        issued, key = issue_server(self._authority, [NAME], [], datetime.now(UTC), timedelta(hours=1))
        credentials = grpc.ssl_server_credentials([(key.encode(), issued.chain[0].encode())])
        self._server = grpc.aio.server()
        method = grpc.unary_unary_rpc_method_handler(self._sign, request_deserializer=None, response_serializer=None)
        service = "istio.v1.auth.IstioCertificateService"
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"CreateCertificate": method}),)
        )
        self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop(None)

    async def _sign(self, data: bytes, context: Any) -> bytes:
        bearer = [value for key, value in context.invocation_metadata() if key == "authorization"]
        if bearer != [f"Bearer {self._token}"]:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
        wire = message("istio.v1.auth.IstioCertificateRequest").FromString(data)
        life = timedelta(seconds=wire.validity_duration)
        issued = issue(self._authority, parse_csr(wire.csr), datetime.now(UTC), life)
        return bytes(message("istio.v1.auth.IstioCertificateResponse")(cert_chain=issued.chain).SerializeToString())
