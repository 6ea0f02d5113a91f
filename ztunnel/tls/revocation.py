"""Which certificates are revoked, and whether a peer's chain has one of them. Pure.

A certificate is known by its serial number and the name of its issuer, both taken from its DER (RFC 5280 section 4.1).
What no list speaks of is not revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ambient.errors import InvalidInput, ProtocolError, Refused
from ztunnel.telemetry.record import Failure, Flag

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_VERSION: Final = 0xA0
_SERIAL_OCTETS: Final = 20
"""The longest serial number that RFC 5280 allows; longer ones are compared by their end."""


def revoked_by(reporter: str) -> str:
    """Istio's counter of connections refused or ended because a certificate of the peer is revoked."""
    return f'istio_crl_policy_rejections{{reporter="{reporter}"}}'


class PeerRevoked(Refused):
    """The peer's certificate, or one that it was issued with, has been revoked."""

    def __init__(self, serial: str) -> None:
        super().__init__("peer certificate", f"serial {serial}", "revoked")
        self.failure = Failure(Flag.CERT_REVOKED, str(self))


def revocation_key(serial: int, issuer: bytes) -> bytes:
    """How one certificate is written in a list: serial number, then the DER of its issuer's name."""
    octets = serial.to_bytes(max(_SERIAL_OCTETS, (serial.bit_length() + 7) // 8), "big")
    return octets[-_SERIAL_OCTETS:] + issuer


def certificate_key(der: bytes) -> tuple[str, bytes]:
    """Serial number in hexadecimal digits, and key, of a certificate. Raises InvalidInput for what is none."""
    try:
        _, at, _ = _element(der, 0, _SEQUENCE)
        _, at, _ = _element(der, at, _SEQUENCE)
        if der[at] == _VERSION:
            _, _, at = _element(der, at, _VERSION)
        _, begin, end = _element(der, at, _INTEGER)
        serial = int.from_bytes(der[begin:end], "big")
        _, _, at = _element(der, end, _SEQUENCE)
        _, _, end = _element(der, at, _SEQUENCE)
    except IndexError:
        raise InvalidInput("peer certificate", why="ends in the middle of its DER") from None
    return f"{serial:x}", revocation_key(serial, der[at:end])


def _element(der: bytes, at: int, wanted: int) -> tuple[int, int, int]:
    """Tag, begin and end of the content of the element at `at`. Raises InvalidInput or IndexError."""
    tag, size = der[at], der[at + 1]
    at += 2
    if size & 0x80:
        octets = size & 0x7F
        size = int.from_bytes(der[at : at + octets], "big")
        at += octets
    if tag != wanted or at + size > len(der):
        raise InvalidInput("peer certificate", why="is not DER of a certificate")
    return tag, at, at + size


class Revocations:
    """What is revoked now. Empty costs nothing: `refuse_revoked` does not even look at the chain."""

    __slots__ = ("_keys", "_unknown")

    def __init__(self) -> None:
        self._keys: frozenset[bytes] = frozenset()
        self._unknown = False

    def replace(self, keys: Iterable[bytes], *, unknown: bool = False) -> None:
        """`unknown`: nobody can say what is revoked, so nobody is believed."""
        self._keys = frozenset(keys)
        self._unknown = unknown

    def refuse_revoked(self, chain: Callable[[], Sequence[bytes]]) -> None:
        """Raises PeerRevoked when one of a peer's verified chain (DER, leaf first) is revoked, ProtocolError when the
        chain cannot be read: while something is revoked, nobody may hide. Raises Refused while what is revoked is
        unknown."""
        if self._unknown:
            raise Refused("peer certificate", why="the revocation lists cannot be used, so that it may be revoked")
        if not self._keys:
            return
        certificates = chain()
        if not certificates:
            raise ProtocolError("peer certificate", why="its chain cannot be looked at")
        for certificate in certificates:
            serial, key = certificate_key(certificate)
            if key in self._keys:
                raise PeerRevoked(serial)
