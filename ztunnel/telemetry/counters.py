"""Monotonic counters of one worker: traffic series by label values, and named counters of other things."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ztunnel.ipc.messages import Counters, Series

_SERIES_LIMIT: Final = 100_000


class Totals:
    """Totals of one traffic series since the worker's start."""

    __slots__ = ("closed", "failed", "labels", "opened", "received", "sent")

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.opened = 0
        self.closed = 0
        self.failed = 0
        self.received = 0
        self.sent = 0


class TrafficCounters:
    """Every series and named counter; `report` gives what changed since the last one."""

    __slots__ = ("_changed", "_other", "_other_changed", "_series")

    def __init__(self) -> None:
        self._series: dict[tuple[str, ...], Totals] = {}
        self._changed: set[Totals] = set()
        self._other: dict[str, int] = {}
        self._other_changed: set[str] = set()

    def series(self, labels: tuple[str, ...]) -> Totals:
        """The series with these labels, marked as changed. Beyond a limit new ones share one "overflow" series."""
        totals = self._series.get(labels)
        if totals is None:
            if len(self._series) >= _SERIES_LIMIT:
                self.count("telemetry_series_overflow")
                labels = (labels[0], *("overflow" for _ in labels[1:]))
            totals = self._series.setdefault(labels, Totals(labels))
        self._changed.add(totals)
        return totals

    def touch(self, totals: Totals) -> None:
        """A series that `series` gave out earlier is about to change again."""
        self._changed.add(totals)

    def count(self, name: str, by: int = 1) -> None:
        """Add to a named counter."""
        self._other[name] = self._other.get(name, 0) + by
        self._other_changed.add(name)

    def value(self, name: str) -> int:
        """The total of a named counter."""
        return self._other.get(name, 0)

    def resend(self) -> None:
        """Everything counts as changed: a new director knows nothing yet."""
        self._changed.update(self._series.values())
        self._other_changed.update(self._other)

    def report(self, gauges: Callable[[], dict[str, float]]) -> Counters | None:
        """Totals of everything that changed; None if nothing did."""
        if not self._changed and not self._other_changed:
            return None
        series = tuple(
            Series(labels=t.labels, opened=t.opened, closed=t.closed, failed=t.failed, received=t.received, sent=t.sent)
            for t in self._changed
        )
        other = {name: self._other[name] for name in self._other_changed}
        self._changed.clear()
        self._other_changed.clear()
        return Counters(series=series, other=other, gauges=gauges())
