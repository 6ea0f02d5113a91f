"""Follows the connections on the kernel path: tells of them as ztunnel tells of its own, cuts what may not be any more.

The kernel keeps a way for each direction and adds up what passes; here they are read a few times a second, and taken
out when their connection is over and was counted. Nothing is lost while no agent runs: ways stay until one has read
them. What is cut is dropped by the programs at once; then the sockets at both ends are ended, and only when they are
gone is the way forgotten.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from ambient.agent.direct_shares import DirectShares
from ambient.agent.direct_telling import End, Telling
from ambient.agent.same_node import Judged, Right
from ambient.datapath.direct import Call, Ends, Tuple, Way
from ambient.datapath.layout import WayFlag

LOOK_S: Final = 0.25
LINGER_S: Final = 1.0
"""How long after its last packet a connection that is over is forgotten."""
UNANSWERED_S: Final = 70.0
"""An opening packet is repeated after 64 seconds at most."""
DOUBT_S: Final = 5.0
"""How long a connection stays open that cannot be judged, while discovery is connected."""
IDLE_S: Final = 60.0
"""After this long without a packet it is asked whether the sockets are still there."""

MOST_S: Final = 0.05
"""How long one look may tell of ends before others of the agent have a turn: the rest waits for the next one."""
_CLIENT, _OPENING, _ENDED, _RESET, _CUT, _OVER = map(
    int, (WayFlag.CLIENT, WayFlag.OPENING, WayFlag.ENDED, WayFlag.RESET, WayFlag.CUT, WayFlag.OVER)
)

log = logging.getLogger("ambient.agent.direct")


class Tables(Protocol):
    """direct.h, as `ambient.datapath.direct` has it."""

    def ways(self) -> Mapping[Tuple, Way]: ...
    def cut(self, tuples: Collection[Tuple], /) -> None: ...
    def forget(self, tuples: Collection[Tuple], /) -> None: ...


class Sockets(Protocol):
    """The sockets of the pods at both ends. `end` and `gone` answer later, by the next time they are asked."""

    def end(self, ends: Ends, /) -> bool:
        """They are to be ended; True once there are none."""

    def gone(self, ends: Ends, /) -> bool:
        """There are none, as far as one has looked."""

    def forget(self, one: Tuple, /) -> None:
        """It is over: whatever was asked of it needs no answer."""


@dataclass(slots=True)
class _Followed:
    judged: Judged
    sent: int = 0
    received: int = 0
    opened: bool = False
    doubted_s: float | None = None
    cut: Judged | None = None
    asked_s: float = field(default=0.0)


class DirectFlows:
    """`judge` says what may become of a connection now, `current` whether what it says is up to date."""

    def __init__(
        self,
        tables: Tables,
        judge: Callable[[Call], Judged],
        current: Callable[[], bool],
        sockets: Sockets,
        telling: Telling,
        shares: DirectShares,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tables = tables
        self._judge = judge
        self._current = current
        self._sockets = sockets
        self._telling = telling
        self._shares = shares
        self._clock = clock
        self._followed: dict[Tuple, _Followed] = {}
        self._until = 0.0

    @property
    def open(self) -> int:
        """How many there are now."""
        return len(self._followed)

    def look(self) -> None:
        """Take in what happened since the last time, and act on it. Raises KernelError."""
        made = self._shares.counted()
        ways = self._tables.ways()
        self._shares.divide(made, Counter(one.source.ip for one, way in ways.items() if way.flags & _CLIENT))
        now = self._clock()
        over: list[Tuple] = []
        judged: dict[Call, Judged] = {}
        self._until = now + MOST_S
        for one, way in ways.items():
            back = ways.get(one.reverse)
            if not way.flags & _CLIENT:
                if back is None and now - way.seen_s > LINGER_S:
                    over.append(one)
                continue
            if back is None:
                if now - way.seen_s > LINGER_S:
                    over.append(one)
                continue
            call = Call(one.source.ip, one.destination)
            found = judged.get(call) or judged.setdefault(call, self._judge(call))
            if self._follow(one, way, back, found, now):
                over += (one, one.reverse)
        self._tables.forget(over)
        for gone in self._followed.keys() - ways.keys():
            self._forget(gone)

    def _follow(self, one: Tuple, way: Way, back: Way, judged: Judged, now: float) -> bool:
        """Bring one up to date; True when it is to be forgotten."""
        followed = self._followed.get(one)
        if followed is None:
            followed = self._followed[one] = _Followed(judged)
        if judged.right is Right.YES:
            followed.judged = judged
        if not followed.opened and not way.flags & _OPENING:
            followed.opened = True
            self._telling.opened(followed.judged)
        self._telling.carried(followed.judged, way.octets - followed.sent, back.octets - followed.received)
        followed.sent, followed.received = way.octets, back.octets
        ends = Ends(one, way.opened_s, way.cookie, back.cookie)
        if way.flags & _CUT:
            return self._cutting(ends, way, followed)
        end = _end_of(way, back)
        idle = now - max(way.seen_s, back.seen_s)
        if end is not None:
            return idle > LINGER_S and self._has_time() and self._over(one, way, followed, end)
        if way.flags & _OPENING:
            return idle > UNANSWERED_S and self._over(one, way, followed, End("timeout", "no answer"))
        if self._may_stay(judged, followed, now):
            return self._looks_dead(ends, followed, idle, now) and self._over(one, way, followed, End("", "vanished"))
        followed.cut = judged
        self._tables.cut((one, one.reverse))
        self._sockets.end(ends)
        log.info("%s -> %s on the kernel path: cut: %s", one.source, one.destination, judged.why or "cannot be judged")
        return False

    def _has_time(self) -> bool:
        return self._clock() < self._until

    def _may_stay(self, judged: Judged, followed: _Followed, now: float) -> bool:
        if judged.right is Right.YES or not self._current():
            followed.doubted_s = None
            return judged.right is not Right.NO
        if judged.right is Right.NO:
            return False
        if followed.doubted_s is None:
            followed.doubted_s = now
        return now - followed.doubted_s < DOUBT_S

    def _looks_dead(self, ends: Ends, followed: _Followed, idle: float, now: float) -> bool:
        if idle < IDLE_S or now - followed.asked_s < IDLE_S:
            return False
        followed.asked_s = now
        return self._sockets.gone(ends)

    def _cutting(self, ends: Ends, way: Way, followed: _Followed) -> bool:
        if not self._sockets.end(ends):
            return False
        why = followed.cut or Judged(Right.NO, "cut by an agent before this one")
        return self._over(ends.tuple, way, followed, End("denied", why.why, why.policy))

    def _over(self, one: Tuple, way: Way, followed: _Followed, end: End) -> bool:
        lasted = way.seen_s - way.opened_s
        self._telling.closed(
            one, followed.judged, followed.sent, followed.received, lasted, end, opened=followed.opened
        )
        self._forget(one)
        return True

    def _forget(self, one: Tuple) -> None:
        del self._followed[one]
        self._sockets.forget(one)


def _end_of(way: Way, back: Way) -> End | None:
    """How it ended, if it did."""
    if way.flags & back.flags & _ENDED or (way.flags | back.flags) & _OVER:
        return End()
    if (way.flags | back.flags) & _RESET:
        return End("refused", "connection refused") if way.flags & _OPENING else End("reset", "reset")
    return None
