"""TLS contexts per identity, made from a descriptor with key and certificates; the key is kept nowhere else."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ambient.errors import InvalidInput, Unavailable
from ambient.model.identity import Identity, parse_identity

_PLAIN_CERTIFICATES: Final = 1 << 32 | 1 << 33
"""SSL_OP_NO_TX_CERTIFICATE_COMPRESSION and ..RX..: of OpenSSL 3.2 and later, not in the ssl module, and nothing before.
Compressing costs each handshake 0.07 ms, and a stranger's octets would be inflated before anybody knows who it is."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Ready to use contexts of one identity; `serial` grows with every renewal."""

    identity: Identity
    server: ssl.SSLContext
    client: ssl.SSLContext
    not_after_unix: float
    serial: int


def _context(protocol: int, descriptor: int, roots: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | _PLAIN_CERTIFICATES
    context.load_verify_locations(cadata=roots)
    context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    return context


def load_credentials(identity: str, descriptor: int, roots: str, not_after_unix: float, serial: int) -> Credentials:
    """Read PEM (key, leaf, intermediates) from `descriptor`, which the caller closes. Raises InvalidInput."""
    try:
        server = _context(ssl.PROTOCOL_TLS_SERVER, descriptor, roots)
        server.num_tickets = 0
        client = _context(ssl.PROTOCOL_TLS_CLIENT, descriptor, roots)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise InvalidInput("certificate", identity, str(error)) from None
    return Credentials(parse_identity(identity), server, client, not_after_unix, serial)


Waiting = Callable[[Credentials | Unavailable], None]


class Wallet:
    """The credentials of this worker's identities, and who waits for them."""

    __slots__ = ("_credentials", "_failures", "_serial", "_waiting", "_wall")

    def __init__(self, wall: Callable[[], float]) -> None:
        self._credentials: dict[str, Credentials] = {}
        self._failures: dict[str, str] = {}
        self._waiting: dict[str, list[Waiting]] = {}
        self._serial = 0
        self._wall = wall

    @property
    def identities(self) -> tuple[str, ...]:
        return tuple(self._credentials)

    def put(self, identity: str, descriptor: int, roots: str, not_after_unix: float) -> None:
        """New credentials; connections made from now on use them. Raises InvalidInput and keeps the old ones."""
        self._serial += 1
        credentials = load_credentials(identity, descriptor, roots, not_after_unix, self._serial)
        self._credentials[identity] = credentials
        self._failures.pop(identity, None)
        for callback in self._waiting.pop(identity, ()):
            callback(credentials)

    def drop(self, identity: str) -> None:
        """The identity is used no more on this node."""
        self._credentials.pop(identity, None)
        self._failures.pop(identity, None)
        self.fail(identity, "identity is gone", keep=False)

    def fail(self, identity: str, why: str, *, keep: bool = True) -> None:
        """No certificate can be had: whoever waits fails; valid old credentials stay in use."""
        if keep:
            self._failures[identity] = why
        error = Unavailable("certificate", identity, why)
        for callback in self._waiting.pop(identity, ()):
            callback(error)

    def get(self, identity: str) -> Credentials | None:
        """Credentials that have not expired, if there are any."""
        credentials = self._credentials.get(identity)
        if credentials is not None and credentials.not_after_unix <= self._wall():
            return None
        return credentials

    def wait(self, identity: str, callback: Waiting) -> None:
        """Call back now if the matter is decided, else when it is. Whoever stops waiting calls `leave`."""
        credentials = self.get(identity)
        if credentials is not None:
            callback(credentials)
        elif identity in self._failures:
            callback(Unavailable("certificate", identity, self._failures[identity]))
        elif identity in self._credentials:
            callback(Unavailable("certificate", identity, "expired"))
        else:
            self._waiting.setdefault(identity, []).append(callback)

    def leave(self, identity: str, callback: Waiting) -> None:
        """Stop waiting."""
        waiting = self._waiting.get(identity, [])
        if callback in waiting:
            waiting.remove(callback)
