"""Our table in one namespace, where rules capture: written so that nobody else's word is taken for ours.

The kernel numbers the transactions of a namespace. What is read back counts as what was written only if ours was the
one transaction between the number before and the number after.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ambient.datapath import nft
from ambient.errors import KernelError, MeshError

_TRIES: Final = 5
"""Others may write into the node's own namespace at any time; each transaction takes some 10 ms."""
_NUMBERS: Final = 1 << 32


class RuleTable:
    """`fd`: its namespace, which is ours to close. `put`: for tests that stand beside it."""

    __slots__ = ("_generation", "_listing", "_put", "fd")

    def __init__(self, fd: int, put: Callable[[int, str], None] = nft.put) -> None:
        self.fd = fd
        self._put = put
        self._listing = ""
        self._generation = -1

    def write(self, rules: str) -> None:
        """In one transaction, and again while others write there at the same moment; where they do not stop it is left
        in doubt. Raises KernelError; nothing was written then, or it is in doubt."""
        for _ in range(_TRIES):
            before = nft.generation(self.fd)
            self._put(self.fd, rules)
            self.doubt()
            if self._take((before + 1) % _NUMBERS):
                return

    def adopt(self) -> None:
        """As it is now, it is right: an agent before us wrote it. Raises KernelError, also when there is none."""
        for _ in range(_TRIES):
            if self._take(nft.generation(self.fd)):
                return

    def doubt(self) -> None:
        """It is not as it should be, whatever it is: to be written again."""
        self._generation, self._listing = -1, ""

    def is_intact(self) -> bool:
        """Nobody was at it. Others may change what is theirs there."""
        with suppress(MeshError):
            now = nft.generation(self.fd)
            if now == self._generation:
                return True
            if self._listing and nft.listing(self.fd) == self._listing:
                self._generation = now  # what was written after that number is seen the next time
                return True
        return False

    def _take(self, generation: int) -> bool:
        """Know it as it is, if nothing was written since that number."""
        listing = nft.listing(self.fd)
        if listing is None:
            raise KernelError("a table is gone", f"namespace {os.fstat(self.fd).st_ino}", "somebody takes it away")
        if nft.generation(self.fd) != generation:
            return False
        self._generation, self._listing = generation, listing
        return True
