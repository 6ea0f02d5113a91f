"""What an on-demand subscriber has asked for by name and what became of it. Pure; its owner says when time has passed.

An answer (there it is, or there is no such thing) holds for one to two calls of `age`. What was missing is then given
back to the server, because not every server tells when something asked for by an alias comes into being later; the
next question asks anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

MOST_NAMES: Final = 20_000
"""Asked for and not given back: whoever connects to ever new addresses must not fill our memory or the server's."""
SHARES: Final = 4
"""One who asks may have so many of them asked for within two ages, this part of all: the others find room."""


class Demand:
    """Names as the wire has them: "network/ip", "namespace/hostname", uid."""

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = most
        self._pending: dict[str, None] = {}
        self._young: dict[str, bool] = {}
        self._old: dict[str, bool] = {}
        self._young_askers: dict[str, int] = {}
        self._old_askers: dict[str, int] = {}

    @property
    def pending(self) -> tuple[str, ...]:
        """Asked for and not answered: to be asked again on a new stream."""
        return tuple(self._pending)

    def decided(self, name: str) -> bool:
        """The server has said lately what it is, or that there is no such thing."""
        return name in self._young or name in self._old

    def ask(self, names: Iterable[str], asker: str = "") -> tuple[str, ...]:
        """Those of `names` that must be sent now; none beyond the bound, these stay undecided. `asker` is held to its
        share; "" is nobody in particular."""
        room = self._most - len(self._pending) - len(self._young) - len(self._old)
        if asker:
            asked = self._young_askers.get(asker, 0)
            room = min(room, self._most // SHARES - asked - self._old_askers.get(asker, 0))
        fresh = [name for name in dict.fromkeys(names) if name not in self._pending and not self.decided(name)]
        del fresh[max(room, 0) :]
        self._pending.update(dict.fromkeys(fresh))
        if asker and fresh:
            self._young_askers[asker] = asked + len(fresh)
        return tuple(fresh)

    def answered(self, found: Iterable[str], missing: Collection[str]) -> bool:
        """What one response says: names and aliases of what is there, names of what is not. Whether it answers us."""
        before = len(self._pending)
        if not before:
            return False
        for name in found:
            if name in self._pending:
                del self._pending[name]
                self._young[name] = False
        for name in missing:
            if name in self._pending:
                del self._pending[name]
                self._young[name] = True
        return len(self._pending) < before

    def age(self) -> tuple[str, ...]:
        """Forget the older answers; gives the names that were missing, which are to be given back."""
        gone, self._old, self._young = self._old, self._young, {}
        self._old_askers, self._young_askers = self._young_askers, {}
        return tuple(name for name, missed in gone.items() if missed)
