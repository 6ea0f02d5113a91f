"""When to ask a quiet peer whether it is still there, and when to believe that it is not. No clock of its own."""

from __future__ import annotations

from ztunnel.hbone.frames import Code
from ztunnel.hbone.limits import Limits, Violation


class KeepAlive:
    """At most one PING of ours is under way. Times are seconds of a monotonic clock."""

    __slots__ = ("_answered", "_asked_at", "_limits", "_quiet_since")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._asked_at: float | None = None
        self._answered = False
        self._quiet_since: float | None = None

    def due(self, now: float) -> bool:
        """Once a second: True when a PING is to be sent now. Raises Violation when an answer is overdue.

        The first is due `ping_after` from the first call, each further one as long after the answer to the last.
        """
        if self._quiet_since is None or self._answered:
            self._quiet_since, self._answered = now, False
        if self._asked_at is not None:
            if now - self._asked_at >= self._limits.ping_timeout:
                raise Violation(Code.NO_ERROR, "ping_timeout", "peer did not answer PING", silent=True)
            return False
        return now - self._quiet_since >= self._limits.ping_after and self.ask(now)

    def ask(self, now: float) -> bool:
        """True when a PING is to be sent now; False when the answer to one is still awaited."""
        if self._asked_at is not None:
            return False
        self._asked_at = now
        return True

    def answered(self) -> None:
        """A PING's acknowledgement came; one that was not asked for changes nothing."""
        if self._asked_at is not None:
            self._asked_at, self._answered = None, True
