"""Fair shares between addresses, for a server that anybody can reach: of connections, and of turns at some work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

G = TypeVar("G", bound=Hashable)


class Guests(Generic[G]):
    """At most `most` connections, and `most_each` of one address. When there is no room, whoever comes takes the oldest
    connection of the address that holds most, if that is more than he holds himself."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._held: dict[str, dict[G, None]] = {}
        self._count = 0

    def arrive(self, address: str, guest: G) -> G | None:
        """Take a connection in; gives the one to turn away, which `leave`s: nobody, another one, or the guest."""
        own = self._held.setdefault(address, {})
        own[guest] = None
        self._count += 1
        if len(own) > self._most_each:
            return guest
        if self._count <= self._most:
            return None
        heaviest = max(self._held.values(), key=len)
        return guest if len(heaviest) <= len(own) else next(iter(heaviest))

    def leave(self, address: str, guest: G) -> None:
        """It is gone."""
        own = self._held.get(address, {})
        if guest in own:
            del own[guest]
            self._count -= 1
            if not own:
                del self._held[address]


class Turns:
    """At most `most` at work at once, and `most_each` of one address; the others wait for theirs."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most_each = most_each
        self._all = asyncio.Semaphore(most)
        self._own: dict[str, tuple[asyncio.Semaphore, list[None]]] = {}

    @asynccontextmanager
    async def of(self, address: str) -> AsyncIterator[None]:
        own, here = self._own.setdefault(address, (asyncio.Semaphore(self._most_each), []))
        here.append(None)
        try:
            async with own, self._all:
                yield
        finally:
            here.pop()
            if not here:
                del self._own[address]
