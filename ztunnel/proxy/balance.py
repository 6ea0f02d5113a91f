"""How many tunnels each worker of a ztunnel has accepted: a few numbers in memory that all of them share.

All workers wait at the same listening sockets, and a tunnel with all its streams stays with the worker that accepts it.
With few tunnels chance would give one worker all the work of a node; so a worker lets those that have fewer go first.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

_SLOTS: Final = 256
_SIZE: Final = 4 * _SLOTS


class Balance:
    """`path` is a file that the workers share, `slot` is this worker's number; without a path it is alone.

    A number is one more than the tunnels of a worker that is there. It is a hint: of a worker that died the last number
    stays until the next one has its slot.
    """

    __slots__ = ("_count", "_numbers", "_slot", "_there")

    def __init__(self, path: str = "", slot: int = 0) -> None:
        self._slot = slot % _SLOTS
        self._numbers = memoryview(_shared(path) if path else mmap.mmap(-1, _SIZE)).cast("I")
        self._count = 0
        self._there = True
        self._numbers[self._slot] = 1

    def add(self, tunnels: int) -> None:
        """So many more (or fewer, below zero) are ours."""
        self._count += tunnels
        if self._there:
            self._numbers[self._slot] = 1 + self._count

    def ahead(self) -> bool:
        """Another worker has fewer than we."""
        mine = 1 + self._count
        return mine > 1 and any(0 < number < mine for number in self._numbers)

    def leave(self) -> None:
        """We accept no more."""
        self._there = False
        self._numbers[self._slot] = 0


def _shared(path: str) -> mmap.mmap:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return mmap.mmap(-1, _SIZE)
    try:
        # Pages that are not there yet would end the process when the disk is full.
        os.posix_fallocate(fd, 0, _SIZE)
        return mmap.mmap(fd, _SIZE)
    except OSError:
        return mmap.mmap(-1, _SIZE)
    finally:
        os.close(fd)
