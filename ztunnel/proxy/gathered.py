"""What a tunnel is to send at the end of a turn, gathered so that it is encrypted in one go.

With many streams at work one TLS record then carries the frames of all of them, and what an application sent is read
from its socket to where its frame will be: it is not copied before it is encrypted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ztunnel.proxy.backlog import Chunks

FULL: Final = 14 * 16_384
"""Octets that are encrypted in one go at most: whole records of TLS, which together the other end reads and hands on at
a time."""
LEAST: Final = 65_536
"""Octets that `space` has at least."""


class Gathered:
    """`encrypt` takes what was gathered, once it is much or on `seal`; `soon` sees to it that `seal` is called by the
    end of the turn. It has memory only between the first octet and `seal`."""

    __slots__ = ("_chunks", "_encrypt", "_filled", "_out", "_soon")

    def __init__(self, chunks: Chunks, encrypt: Callable[[memoryview], object], soon: Callable[[], None]) -> None:
        self._chunks = chunks
        self._encrypt = encrypt
        self._soon = soon
        self._out: memoryview | None = None
        self._filled = 0

    def space(self) -> memoryview:
        """Where the next octets may be put, and told with `put`; not valid after anything else."""
        if self._filled > FULL - LEAST:
            self.seal()
        out = self._out
        if out is None:
            out = self._out = self._chunks.take()
            self._soon()
        return out[self._filled : FULL]

    def put(self, size: int) -> None:
        """So many octets were put at the beginning of `space()`."""
        self._filled += size

    def write(self, data: bytes | memoryview) -> None:
        """Copy octets there."""
        at, size = 0, len(data)
        while at < size:
            space = self.space()
            part = min(len(space), size - at)
            space[:part] = data[at : at + part]
            self._filled += part
            at += part

    def seal(self) -> None:
        """Encrypt what was gathered."""
        out, filled = self._out, self._filled
        if out is not None:
            self._out, self._filled = None, 0
            if filled:
                self._encrypt(out[:filled])
            self._chunks.give(out)
