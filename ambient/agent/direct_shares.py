"""How many connections each pod may have on the same-node kernel path: no pod more than are left for the others.

The kernel counts what each address began; here the ways are counted a few times a second, and each address is told up
to which of its connections it may go. What is beyond takes the tunnel. No I/O of its own.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol

from ambient.datapath.direct import MOST_CONNECTIONS
from ambient.model.address import IpAddress

SAID_EVERY_S: Final = 5.0

log = logging.getLogger("ambient.agent.direct")


class Tables(Protocol):
    """direct.h, as `ambient.datapath.direct` has it."""

    def made(self) -> Mapping[IpAddress, int]: ...
    def give_room(self, room: Mapping[IpAddress, int], /) -> None: ...
    def take_room(self, clients: Collection[IpAddress], /) -> None: ...


def rooms(
    made: Mapping[IpAddress, int], held: Counter[IpAddress], clients: Collection[IpAddress], most: int
) -> dict[IpAddress, int]:
    """Up to which connection each client may go. `made`: how many each began when the `held` ones had not been counted
    yet, so that what began meanwhile is counted twice rather than not at all. All at once they leave one such part."""
    left = max(0, most - held.total())
    at_once = left // (1 + len(clients))
    return {ip: made.get(ip, 0) + max(0, min(at_once, left - held[ip])) for ip in clients}


class DirectShares:
    """`clients` are the addresses that have grants, `name_of` says whose one is."""

    def __init__(
        self,
        tables: Tables,
        clients: Callable[[], Collection[IpAddress]],
        name_of: Callable[[IpAddress], str] = str,
        most: int = MOST_CONNECTIONS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tables = tables
        self._clients = clients
        self._name_of = name_of
        self._most = most
        self._clock = clock
        self._given: dict[IpAddress, int] = {}
        self._said_s = -SAID_EVERY_S

    def counted(self) -> Mapping[IpAddress, int]:
        """What each address began, to be taken before the ways are read. Raises KernelError."""
        return self._tables.made()

    def divide(self, made: Mapping[IpAddress, int], held: Counter[IpAddress]) -> None:
        """Tell every client how far it may go. `held`: the connections of each address now. Raises KernelError."""
        clients = frozenset(self._clients())
        self._say(made, held)
        room = rooms(made, held, clients, self._most)
        gone = made.keys() - clients
        self._tables.take_room(gone)
        self._tables.give_room({ip: until for ip, until in room.items() if self._given.get(ip) != until})
        self._given = room

    def _say(self, made: Mapping[IpAddress, int], held: Counter[IpAddress]) -> None:
        at_end = [ip for ip, until in self._given.items() if made.get(ip, 0) >= until]
        now = self._clock()
        if not at_end or now - self._said_s < SAID_EVERY_S:
            return
        self._said_s = now
        for ip in at_end:
            log.warning(
                "%s has its share of the same-node kernel path, %d connections: more take the tunnel",
                self._name_of(ip),
                held[ip],
            )
