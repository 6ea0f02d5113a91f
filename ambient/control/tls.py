"""The control plane's own server certificate: issued by our issuer, renewed at half its life, used at once."""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, Final

import grpc

from ambient.control.issuers import Issuer
from ambient.model.address import IpAddress

LIFETIME: Final = timedelta(hours=24)
_FUTURE: Final = timedelta(minutes=1)
_LOOPBACK: Final = (ip_address("127.0.0.1"), ip_address("::1"))

_log = logging.getLogger("ambient.control.tls")


class ServerCertificate:
    """Key and certificate of the moment. New handshakes use what `renew` made last; `renew` comes before all else."""

    def __init__(
        self, issuer: Issuer, names: Collection[str], listen: IpAddress, *, lifetime: timedelta = LIFETIME
    ) -> None:
        self._issuer = issuer
        self._names = sorted(names)
        self._addresses = list(_LOOPBACK if listen.is_unspecified else dict.fromkeys((listen, *_LOOPBACK)))
        self._lifetime = lifetime
        self._pair = (b"", b"")
        self._told = self._pair
        self._made: datetime | None = None
        self._renew_at: datetime | None = None
        self._contexts: list[Callable[[], None]] = []
        self.not_after: datetime | None = None

    def due(self, now: datetime) -> bool:
        """Half of its life is over, or it was made under a clock that has been put back since."""
        return self._made is None or self._renew_at is None or now >= self._renew_at or now < self._made - _FUTURE

    async def renew(self, now: datetime) -> None:
        """Have a new certificate; raises MeshError when none can be had, and the one in use stays."""
        made = await self._issuer.serving(self._names, self._addresses, self._lifetime)
        self._made, self._renew_at, self.not_after = now, now + (made.not_after - now) / 2, made.not_after
        if (made.key.encode(), made.chain.encode()) == self._pair:
            return
        self._pair = (made.key.encode(), made.chain.encode())
        for load in self._contexts:
            load()
        _log.info("server certificate %x until %s", made.serial, made.not_after.isoformat(timespec="seconds"))

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow renewals (gRPC asks for news at each handshake)."""
        self._told = self._pair
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            grpc.ssl_server_certificate_configuration([self._told]), self._news, require_client_authentication=False
        )
        return credentials

    def context(self) -> ssl.SSLContext:
        """A context for servers that are not gRPC; it follows renewals."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2

        def load() -> None:
            key, chain = self._pair
            # The ssl module reads files only; a key belongs on no disk.
            with os.fdopen(os.memfd_create("serving", os.MFD_CLOEXEC), "wb") as file:
                file.write(key + chain)
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")

        load()
        self._contexts.append(load)
        return context

    def _news(self) -> Any:
        """The new configuration once after a renewal, else None: gRPC replaces what it has by every answer, and doing
        so under many handshakes at once ended the process (segmentation fault in grpcio 1.71 to 1.85)."""
        pair = self._pair
        if pair is self._told:
            return None
        self._told = pair
        return grpc.ssl_server_certificate_configuration([pair])
