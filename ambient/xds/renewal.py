"""When to ask for which certificate: a pure state machine over identities, told the time by its caller.

Half-life renewal with jitter, per-identity back-off, a bound on outstanding requests; a failure never takes a
valid certificate away, and identities that fail leave room for the others even when every request of theirs hangs.
Times are Unix seconds. No I/O, no clock, no keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

OUTSTANDING: Final = 8
AGAIN: Final = 4
"""How many of the outstanding requests may be of identities that have failed: the CA may let them hang."""
FIRST_RETRY: Final = 1.0
LONGEST_RETRY: Final = 150.0
RETRY_JITTER: Final = 0.2
RENEW_JITTER: Final = 0.05
"""Part of the lifetime by which renewal may come earlier or later than half life, so that nodes do not march in
step."""
FUTURE: Final = 60.0
"""A certificate that begins later than this from now was issued under a clock that has been put right since."""
BACKDATED: Final = 120.0
"""CAs let certificates begin before they are issued (Istio's by two minutes), for clocks that are behind. That is no
part of a life: one of a minute would be half over at once. Of one that was not issued just now it is guessed."""


RENEW_ALL_WITHIN: Final = 10.0
"""Over how many seconds (at most a tenth of a life) all are renewed when a root has changed."""


class Priority(IntEnum):
    """Who is asked for first."""

    REAL_TIME = 0
    WARMUP = 1
    BACKGROUND = 2


@dataclass(frozen=True, slots=True)
class Step:
    """What the caller has to do now: `fetch` these, then come back at `wake` (None: when something happens)."""

    fetch: tuple[str, ...]
    wake: float | None


@dataclass(slots=True)
class _Entry:
    priority: Priority
    due: float
    not_before: float = 0.0
    not_after: float | None = None
    failures: int = 0
    outstanding: bool = False
    why: str = ""


class Schedule:
    """`draw()` gives a number in [0, 1) and is the only source of chance."""

    def __init__(self, draw: Callable[[], float], outstanding: int = OUTSTANDING) -> None:
        self._draw = draw
        self._limit = outstanding
        self._entries: dict[str, _Entry] = {}
        self._in_flight: set[str] = set()

    def want(self, identity: str, now: float, priority: Priority = Priority.WARMUP) -> None:
        """This identity is needed. Again with a higher priority: it moves forward (but never out of its back-off)."""
        entry = self._entries.get(identity)
        if entry is None:
            self._entries[identity] = _Entry(priority, now, outstanding=identity in self._in_flight)
        else:
            entry.priority = min(entry.priority, priority)

    def forget(self, identity: str) -> None:
        """Nobody needs it any more; an answer under way will be ignored by `fetched`."""
        self._entries.pop(identity, None)

    def fetched(self, identity: str, not_before: float, not_after: float, now: float) -> bool:
        """A certificate arrived (from the CA or out of custody). False: it was forgotten meanwhile, drop it."""
        issued_now = identity in self._in_flight
        self._in_flight.discard(identity)
        entry = self._entries.get(identity)
        if entry is None:
            return False
        begin = not_before
        if issued_now:
            begin = max(not_before, now)
        elif not_before + BACKDATED <= now:
            begin = not_before + BACKDATED
        life = not_after - begin
        half = begin + life / 2 + (2 * self._draw() - 1) * RENEW_JITTER * life
        # A lifetime of seconds, or a clock far ahead, must not turn into a busy loop.
        entry.due = max(half, now + min(FIRST_RETRY, (not_after - not_before) / 4))
        entry.not_before, entry.not_after = not_before, not_after
        entry.failures, entry.outstanding, entry.why = 0, False, ""
        entry.priority = Priority.BACKGROUND
        return True

    def failed(self, identity: str, why: str, now: float) -> bool:
        """The request failed; it comes again later. True: there is no valid certificate to go on with."""
        self._in_flight.discard(identity)
        entry = self._entries.get(identity)
        if entry is None:
            return False
        wait = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(entry.failures, 20))
        entry.due = now + wait * (1 + (2 * self._draw() - 1) * RETRY_JITTER)
        entry.failures, entry.outstanding, entry.why = entry.failures + 1, False, why
        return not self.valid(identity, now)

    def hurry(self, now: float) -> None:
        """The CA may be back: everything in back-off is due at once, with its count kept."""
        for entry in self._entries.values():
            if entry.failures:
                entry.due = min(entry.due, now)

    def renew_all(self, now: float) -> None:
        """What comes with a certificate has changed (the roots): each is due soon, not all in one breath."""
        for entry in self._entries.values():
            if entry.not_after is not None and not entry.failures:
                within = min(RENEW_ALL_WITHIN, (entry.not_after - entry.not_before) / 10)
                entry.due = min(entry.due, now + within * self._draw())

    def expiries(self) -> Mapping[str, tuple[float, float]]:
        """Begin and end of every certificate there is, by identity; run out or not."""
        return {
            identity: (entry.not_before, entry.not_after)
            for identity, entry in self._entries.items()
            if entry.not_after is not None
        }

    def step(self, now: float) -> Step:
        """Hand out what is due within the limit of outstanding requests; each is outstanding from here on.

        `now` may have jumped: what is not valid yet is due at once, and no back-off ends later than one begun now.
        """
        for entry in self._entries.values():
            if entry.failures:
                entry.due = min(entry.due, now + LONGEST_RETRY * (1 + RETRY_JITTER))
            elif entry.not_before > now + FUTURE:
                entry.due = min(entry.due, now)
        waiting = [(entry.priority, entry.due, name) for name, entry in self._entries.items() if not entry.outstanding]
        room = self._limit - len(self._in_flight)
        again = min(AGAIN, self._limit - 1) - sum(self._failing(identity) for identity in self._in_flight)
        due: list[tuple[Priority, float, str]] = []
        for item in sorted(item for item in waiting if item[1] <= now):
            failing = self._failing(item[2])
            if len(due) < room and (not failing or again > 0):
                again -= failing
                due.append(item)
        for _, _, identity in due:
            self._entries[identity].outstanding = True
            self._in_flight.add(identity)
        chosen = {identity for _, _, identity in due}
        # With no room the next answer wakes us, not the clock.
        later = [when for _, when, identity in waiting if identity not in chosen and when > now]
        return Step(tuple(identity for _, _, identity in due), min(later, default=None))

    def _failing(self, identity: str) -> bool:
        entry = self._entries.get(identity)
        return entry is not None and entry.failures > 0

    def valid(self, identity: str, now: float) -> bool:
        """There is a certificate that has not run out."""
        entry = self._entries.get(identity)
        return entry is not None and entry.not_after is not None and now < entry.not_after

    def state(self, identity: str, now: float) -> str:
        """As the config dump says it: Available, Initializing or "Unavailable: why"."""
        if self.valid(identity, now):
            return "Available"
        entry = self._entries.get(identity)
        if entry is None or (not entry.why and entry.not_after is None):
            return "Initializing"
        return f"Unavailable: {entry.why or 'the certificate has expired'}"

    @property
    def identities(self) -> frozenset[str]:
        """Every identity that is wanted."""
        return frozenset(self._entries)
