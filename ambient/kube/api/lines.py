"""Octets of a stream cut into lines, whatever pieces they come in. Bounded; a line without its end is not given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ambient.errors import ProtocolError

LONGEST: Final = 16 << 20


class Lines:
    """`feed` what comes; iterate over the lines that it completes."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete now, without their ends, empty ones left out.

        Raises ProtocolError for one that is too long.
        """
        begin = 0
        while (end := data.find(b"\n", begin)) >= 0:
            line = b"".join((*self._parts, data[begin:end]))
            self._parts, self._size = [], 0
            begin = end + 1
            if line.strip():
                yield line
        if begin < len(data):
            self._parts.append(data[begin:] if begin else data)
            self._size += len(data) - begin
            if self._size > self._longest:
                raise ProtocolError("stream", why=f"a line of more than {self._longest} bytes")
