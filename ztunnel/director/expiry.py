"""How long certificates still last: what is published about it, and when it has to be said aloud. Pure.

Renewal comes at half of a life. What has only a quarter of it left has failed to be renewed for a quarter of a life,
and somebody has time to act; it is said again at a tenth and when it is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

MOST_NAMED: Final = 10
"""Identities with a line of their own in the metrics: those whose certificates run out first."""


class Life(NamedTuple):
    """From when to when a certificate is of use, Unix seconds; `by`: what of its chain ends it, "" if it does."""

    begin: float
    end: float
    by: str = ""

    def until(self, end: float, by: str) -> Life:
        """The life with a chain of which `by` ends then. One cut short is as long as before, so that it becomes urgent
        as far ahead of its end."""
        return Life(self.begin + end - self.end, end, by) if by and end < self.end else self


Expiries = Mapping[str, Life]
"""By identity."""


class Alarm(IntEnum):
    """How urgent a certificate is."""

    NONE = 0
    LATE = 1
    URGENT = 2
    EXPIRED = 3


_LEFT: Final = ((0.0, Alarm.EXPIRED), (0.1, Alarm.URGENT), (0.25, Alarm.LATE))
"""Part of the life that is left, and what it means when there is not more."""


def alarm(begin: float, end: float, now: float) -> Alarm:
    """How urgent a certificate of this life is."""
    left = end - now
    return next((level for part, level in _LEFT if left <= part * (end - begin)), Alarm.NONE)


@dataclass(frozen=True, slots=True)
class Notice:
    """One certificate that has become more urgent since the last look; `left_s` below zero: since when it is over."""

    identity: str
    level: Alarm
    left_s: float
    by: str = ""

    def __str__(self) -> str:
        if self.by:
            when = "has expired" if self.level is Alarm.EXPIRED else f"runs out in {spoken(self.left_s)}"
            return f"certificate for {self.identity} rests on authority {self.by}, which {when}"
        if self.level is Alarm.EXPIRED:
            return f"certificate for {self.identity} has expired: its connections are refused until there is another"
        return f"certificate for {self.identity} was not renewed and runs out in {spoken(self.left_s)}"


class Watch:
    """Remembers what has been said, so that each step is said once."""

    def __init__(self) -> None:
        self._said: dict[str, Alarm] = {}

    def look(self, expiries: Expiries, now: float) -> list[Notice]:
        """What must be said now, the most urgent first."""
        levels = {identity: alarm(life.begin, life.end, now) for identity, life in expiries.items()}
        found = [
            Notice(identity, level, expiries[identity].end - now, expiries[identity].by)
            for identity, level in levels.items()
            if level > self._said.get(identity, Alarm.NONE)
        ]
        self._said = {identity: level for identity, level in levels.items() if level}
        return sorted(found, key=lambda one: (-one.level, one.left_s, one.identity))


def gauges(expiries: Expiries, now: float) -> dict[str, float]:
    """Metrics by name (labels in braces): how many there are and how urgent, when the first runs out, and when the
    first few identities do by name."""
    levels = [alarm(life.begin, life.end, now) for life in expiries.values()]
    found: dict[str, float] = {
        "ambient_certificates": len(levels),
        "ambient_certificates_late": sum(level in (Alarm.LATE, Alarm.URGENT) for level in levels),
        "ambient_certificates_expired": levels.count(Alarm.EXPIRED),
    }
    first = sorted((life.end, identity) for identity, life in expiries.items())[:MOST_NAMED]
    if first:
        found["ambient_certificate_first_expiry_timestamp_seconds"] = first[0][0]
    for end, identity in first:
        found[f'ambient_certificate_expiry_timestamp_seconds{{identity="{identity}"}}'] = end
    return found


def spoken(seconds: float) -> str:
    """A duration for people: its two largest units."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
