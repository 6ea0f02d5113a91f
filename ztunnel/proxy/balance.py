"""How much each worker of a ztunnel has accepted of a kind: a few numbers in memory that all of them share.

All workers wait at the same listening sockets, and what one accepts stays with it: a tunnel with all its streams, or an
application's connection. A crowd that comes at once would mostly be taken by whoever wakes first, and with few tunnels
chance would give one worker all the work of a node; so a worker lets those that have fewer go first.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

_SLOTS: Final = 256
_SIZE: Final = 4 * (1 + _SLOTS)


class Balance:
    """`path` is a file that the workers share, `slot` is this worker's number; without a path it is alone. `slack`: so
    large a part of what another has is no lead; of what comes and goes fast no two have the same for long.

    The first number is that of the slots in use. The others are one more than what a worker that accepts has, 0 where
    none does. They are hints: of a worker that died the last number stays until the next one has its slot.
    """

    __slots__ = ("_count", "_numbers", "_slack", "_slot", "_there")

    def __init__(self, path: str = "", slot: int = 0, slack: float = 0.0) -> None:
        self._slot = 1 + slot % _SLOTS
        self._slack = 1.0 + slack
        self._numbers = memoryview(_shared(path) if path else mmap.mmap(-1, _SIZE)).cast("I")
        self._count = 0
        self._there = False
        self._numbers[self._slot] = 0

    def join(self) -> None:
        """We accept, too."""
        self._there = True
        self.add(0)

    def add(self, more: int) -> None:
        """So many more (or fewer, below zero) are ours."""
        self._count += more
        if self._there:
            numbers = self._numbers
            numbers[self._slot] = 1 + self._count
            if numbers[0] < self._slot:  # again, where two began at once and the lower wrote last
                numbers[0] = self._slot

    def ahead(self) -> bool:
        """Another worker has fewer than we, by more than the slack."""
        mine = 1 + self._count
        if mine > 1:
            numbers, slack = self._numbers, self._slack
            for slot in range(1, 1 + min(numbers[0], _SLOTS)):
                if 0 < numbers[slot] * slack < mine:
                    return True
        return False

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
