"""Tunnels to a pod whose TLS handshake is under way, and which of them makes way when there are too many.

An honest handshake is a few round trips. Whoever begins some and says no more is patiently waited for while there is
room; without room the oldest of the address that has most goes. So the handshakes of one address are in each other's
way, and those of others stay.
"""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar

from ambient.model.address import Endpoint, IpAddress

STALLED_S: Final = 1.0
"""A handshake that takes longer gives way when there are too many."""
CROWDING_S: Final = 0.25
"""The same for an address with a crowd of them: some hundred a second pass, more than the budget of new connections
lets in, so that behind a crowd nobody waits longer than behind as many honest peers."""
CROWD: Final = 8
"""More than this many of one address are a crowd: a proxy with several threads begins a few at the same time."""


class Handshake(Protocol):
    """`born`: when it began, in seconds of the monotonic clock. `computing`: the peer waits for us now; `delayed`: for
    how many seconds it did before."""

    source: Endpoint
    born: float
    computing: bool
    delayed: float


Shaker = TypeVar("Shaker", bound=Handshake)


class Shaking(Generic[Shaker]):
    """Those of one pod in this worker."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[IpAddress, dict[Shaker, None]] = {}
        """By the peer's address, the oldest first."""

    def add(self, one: Shaker) -> None:
        """It begins."""
        self._of.setdefault(one.source.ip, {})[one] = None

    def remove(self, one: Shaker) -> bool:
        """It is complete, or never will be; False when that is known already."""
        mine = self._of.get(one.source.ip)
        if mine is None or one not in mine:
            return False
        del mine[one]
        if not mine:
            del self._of[one.source.ip]
        return True

    def stalled(self, now: float) -> Shaker | None:
        """Which one has to make way for others: the oldest of the address that has most, unless it is too young. Among
        addresses with equally many it is the oldest of all. Only what a peer made us wait counts."""
        most = max(map(len, self._of.values()), default=0)
        crowds = (mine for mine in self._of.values() if len(mine) == most)
        awaited = (one for mine in crowds for one in mine if not one.computing)
        first = min(awaited, key=_began, default=None)
        patience = CROWDING_S if most > CROWD else STALLED_S
        return first if first is not None and now - _began(first) > patience else None


def _began(one: Handshake) -> float:
    """When it would have, had we taken no time."""
    return one.born + one.delayed
