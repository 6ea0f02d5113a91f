"""The control plane's own server certificate: issued by our authority, renewed at half its life, used at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, Final

import grpc

from ambient.ca.issue import issue_server
from ambient.ca.roots import Authority
from ambient.model.address import IpAddress

LIFETIME: Final = timedelta(hours=24)
_FUTURE: Final = timedelta(minutes=1)
_LOOPBACK: Final = (ip_address("127.0.0.1"), ip_address("::1"))

_log = logging.getLogger("ambient.control.tls")


class ServerCertificate:
    """Key and certificate of the moment. New handshakes use what `renew` made last."""

    def __init__(
        self, authority: Callable[[], Authority], names: Collection[str], listen: IpAddress, *, now: datetime
    ) -> None:
        self._authority = authority
        self._names = sorted(names)
        self._addresses = list(_LOOPBACK if listen.is_unspecified else dict.fromkeys((listen, *_LOOPBACK)))
        self._pair = (b"", b"")
        self._told = self._pair
        self._made = self._renew_at = now
        self.renew(now)

    def due(self, now: datetime) -> bool:
        """Half of its life is over, or it was made under a clock that has been put back since."""
        return now >= self._renew_at or now < self._made - _FUTURE

    def renew(self, now: datetime) -> None:
        """Issue a new certificate; raises Unavailable when the authority cannot."""
        issued, key = issue_server(self._authority(), self._names, self._addresses, now, LIFETIME)
        self._pair = (key.encode(), "".join(issued.chain[:-1]).encode())
        self._made, self._renew_at = now, now + (issued.not_after - now) / 2
        _log.info("server certificate %x until %s", issued.serial, issued.not_after.isoformat(timespec="seconds"))

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow renewals (gRPC asks for news at each handshake)."""
        self._told = self._pair
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            grpc.ssl_server_certificate_configuration([self._told]), self._news, require_client_authentication=False
        )
        return credentials

    def _news(self) -> Any:
        """The new configuration once after a renewal, else None: gRPC replaces what it has by every answer, and doing
        so under many handshakes at once ended the process (segmentation fault in grpcio 1.71 to 1.85)."""
        pair = self._pair
        if pair is self._told:
            return None
        self._told = pair
        return grpc.ssl_server_certificate_configuration([pair])
