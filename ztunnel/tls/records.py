"""How much of a TLS handshake has come: only whole records are worth a step of it."""

from __future__ import annotations

from typing import Final

from ambient.errors import ProtocolError

PIECES: Final = 16
"""An honest peer's handshake comes in some seven records at most; who sends more of them is not waited for."""
_HEADER: Final = 5
_LARGEST: Final = (1 << 14) + 256
_TYPES: Final = (20, 21, 22, 23)


class Records:
    """Of one peer, during the handshake (RFC 8446, section 5.1)."""

    __slots__ = ("_header", "_left", "_pieces")

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        """Octets of the record that are still to come."""
        self._pieces = 0

    def complete(self, data: memoryview) -> bool:
        """These octets end a record, or are none: there is something to go on with. Raises ProtocolError when that was
        so too often."""
        found, at = False, 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
            else:
                taken = min(_HEADER - len(self._header), len(data) - at)
                self._header += data[at : at + taken]
                if self._header[0] not in _TYPES:
                    found = True  # TLS refuses it, or reads on: where the next one begins nobody knows
                    break
            at += taken
            if self._left:
                self._left -= taken
                found = found or not self._left
            elif len(self._header) == _HEADER:
                self._left = int.from_bytes(self._header[3:], "big")
                self._header.clear()
                found = found or not 0 < self._left <= _LARGEST
        if found:
            self._pieces += 1
            if self._pieces > PIECES:
                raise ProtocolError("TLS handshake", "", "in too many pieces")
        return found
