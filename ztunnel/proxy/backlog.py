"""Octets that wait for a socket to take them, kept in pages that go back to the system when they have left.

The allocator would keep them: octets of many stalled connections, freed one by one between other allocations, leave
holes that are never returned. So they live in anonymous mappings; a few spare ones are kept for connections that fall
behind for a moment, which is all that most ever do.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

CHUNK: Final = 256 * 1024
_SPARE: Final = 8
_VIEWS: Final = 4
STUCK_S: Final = 10.0
"""A connection of which nothing has left for so long gives way where the pod holds too much for others to begin."""


class Holder(Protocol):
    """Who has octets waiting."""

    def give_way(self) -> None:
        """Its memory is needed: end it, so that nobody takes what was sent until now for all there is."""


class Chunks:
    """Mappings of CHUNK octets: all of a worker's backlogs take theirs from here, and what its tunnels gather."""

    __slots__ = ("_spare",)

    def __init__(self) -> None:
        self._spare: list[memoryview] = []

    def take(self) -> memoryview:
        if self._spare:
            return self._spare.pop()
        return memoryview(mmap.mmap(-1, CHUNK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def give(self, chunk: memoryview) -> None:
        """The caller has no view of it any more."""
        if len(self._spare) < _SPARE:
            self._spare.append(chunk)

    def crowded(self) -> bool:
        """So much is held already that whoever has octets waiting should bring no more."""
        return False

    def moved(self, holder: Holder) -> None:
        """Some of what waits for it have left, or are the first to wait."""

    def emptied(self, holder: Holder) -> None:
        """Nothing waits for it any more."""


class CountedChunks(Chunks):
    """The chunks of one pod's connections: `count` is told the octets of each that is taken or given back, `crowded`
    says whether the pod holds too many. `clock` is monotonic, in seconds."""

    __slots__ = ("_clock", "_count", "_crowded", "_moved", "_source")

    def __init__(
        self,
        source: Chunks,
        count: Callable[[int], None],
        crowded: Callable[[], bool],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__()
        self._source = source
        self._count = count
        self._crowded = crowded
        self._clock = clock
        self._moved: dict[Holder, float] = {}
        """When octets of each holder left last; who is stuck longest comes first."""

    def take(self) -> memoryview:
        self._count(CHUNK)
        return self._source.take()

    def give(self, chunk: memoryview) -> None:
        self._count(-CHUNK)
        self._source.give(chunk)

    def crowded(self) -> bool:
        return self._crowded()

    def moved(self, holder: Holder) -> None:
        self._moved.pop(holder, None)
        self._moved[holder] = self._clock()

    def emptied(self, holder: Holder) -> None:
        self._moved.pop(holder, None)

    def stuck(self) -> Holder | None:
        """Who has not moved for longest, if that is long."""
        first = next(iter(self._moved), None)
        return first if first is not None and self._clock() - self._moved[first] > STUCK_S else None


class Backlog:
    """A queue of octets. `size` is how many wait."""

    __slots__ = ("_chunks", "_end", "_start", "size", "source")

    def __init__(self, source: Chunks) -> None:
        self.size = 0
        self.source = source
        self._chunks: deque[memoryview] = deque()
        self._start = 0
        """Where the octets begin in the first chunk."""
        self._end = CHUNK
        """Where they end in the last one."""

    def append(self, data: bytes | memoryview) -> None:
        """Copy `data` behind what waits already."""
        at, size = 0, len(data)
        self.size += size
        while at < size:
            if self._end == CHUNK:
                self._chunks.append(self.source.take())
                self._end = 0
            part = min(size - at, CHUNK - self._end)
            self._chunks[-1][self._end : self._end + part] = data[at : at + part]
            self._end += part
            at += part

    def head(self) -> list[memoryview]:
        """The octets that are next, at most a megabyte, to be sent and forgotten before anything else is called."""
        chunks, last = self._chunks, len(self._chunks) - 1
        return [
            chunks[at][self._start if not at else 0 : self._end if at == last else CHUNK]
            for at in range(min(last + 1, _VIEWS))
        ]

    def drop(self, count: int) -> None:
        """The first `count` octets have left."""
        self.size -= count
        self._start += count
        while self._chunks and (self._start >= CHUNK or not self.size):
            self.source.give(self._chunks.popleft())
            self._start = max(0, self._start - CHUNK)
        if not self._chunks:
            self._start, self._end = 0, CHUNK

    def clear(self) -> None:
        self.drop(self.size)
