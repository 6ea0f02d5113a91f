"""A TLS session between two memory buffers. It owns no socket: this is the seam where a session bound to a socket
(kernel TLS) could stand instead."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Final

from ambient.errors import ProtocolError

_ALPN: Final = "h2"
_DER: Final = 2
"""The ssl module's number of that encoding."""


class TlsSession:
    """`feed` what arrived, then `handshake` until it is true, then `read_into`; `pending` has what must be sent."""

    __slots__ = ("_incoming", "_left", "_object", "_outgoing", "_read", "feed", "write")
    __deletable__ = ("_left", "_object", "_read", "feed", "write")
    """For mypyc: what `release` deletes."""

    def __init__(self, context: ssl.SSLContext, *, server: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self.feed = self._incoming.write
        """Take octets from the wire."""
        # What an SSLObject calls in its turn, where it can be had: that is a call less for every record.
        inner: Any = getattr(self._object, "_sslobj", self._object)
        self._read: Callable[[int, memoryview], int] = inner.read
        self._left: Callable[[], int] = inner.pending
        self.write: Callable[[memoryview], int] = inner.write
        """Encrypt octets (all of them, at once); only after the handshake."""

    def handshake(self) -> bool:
        """Go on with the handshake; True when it is complete. Raises ProtocolError."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except (ssl.SSLError, ValueError) as error:
            raise ProtocolError("TLS handshake", "", _reason(error)) from None
        if self._object.selected_alpn_protocol() != _ALPN:
            raise ProtocolError("TLS handshake", "ALPN", f"peer did not agree on {_ALPN}")
        return True

    def certificate(self) -> dict[str, object] | None:
        """The peer's certificate as the ssl module describes it. Raises ProtocolError if it cannot be read."""
        try:
            return self._object.getpeercert()  # type: ignore[return-value]
        except (ValueError, UnicodeError, ssl.SSLError) as error:
            raise ProtocolError("peer certificate", "", str(error)) from None

    def chain(self) -> list[bytes]:
        """The peer's chain as it was verified, leaf first, DER; [] before the handshake. Raises ProtocolError."""
        verified = getattr(self._object, "get_verified_chain", None)
        try:
            if verified is not None:
                return list(verified())
            # Before Python 3.13 the same function is there without its public name.
            found = self._object._sslobj.get_verified_chain()  # type: ignore[attr-defined]
            return [one.public_bytes(_DER) for one in found or ()]
        except (ValueError, ssl.SSLError) as error:
            raise ProtocolError("peer certificate", "", str(error)) from None

    def read_into(self, buffer: memoryview) -> int:
        """Decrypted octets put into `buffer`; 0: no more for now, -1: the peer closed the session.

        Raises ProtocolError when the stream is corrupt.
        """
        try:
            return self._read(len(buffer), buffer) or -1
        except ssl.SSLWantReadError:
            return 0
        except ssl.SSLZeroReturnError:
            return -1
        except ssl.SSLError as error:
            raise ProtocolError("TLS", "", _reason(error)) from None

    def drained(self) -> bool:
        """Nothing more can be read now: asking costs much less than being told so by an error of OpenSSL."""
        return not self._incoming.pending and not self._left()

    def pending(self) -> bytes:
        """Take what must be sent to the peer (may be empty)."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def close(self) -> None:
        """Say close_notify; it then is in `pending`."""
        try:
            self._object.unwrap()
        except (ssl.SSLError, ValueError):
            return

    def release(self) -> None:
        """Give the memory back now: buffers of a busy session are large, and what refers to it is found by the cycle
        collector only, much later. Nothing can be asked any more but `pending`, which is empty."""
        self._incoming = self._outgoing = ssl.MemoryBIO()
        del self._left, self._object, self._read, self.feed, self.write


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"peer certificate not verified: {error.verify_message}"
    return getattr(error, "reason", None) or str(error)
