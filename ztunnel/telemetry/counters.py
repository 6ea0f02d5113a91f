"""Monotonic counters of one worker: traffic series by label values, and named counters of other things. Bounded.

A worker keeps the series that changed last, up to a limit. The others it forgets once it has reported them (the
director knows their totals by then); one that comes back begins at zero. Between two reports there may be twice as
many: what is new beyond that is counted under the label value "overflow".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from weakref import WeakValueDictionary

from ambient.model.traffic import is_overflow, overflow
from ztunnel.ipc.messages import Counters, Exemplar, Series

SERIES_LIMIT: Final = 2_000
_NAMES_LIMIT: Final = 4_000
"""Of one metric: what pods can make many of must leave room for what says who was denied."""


class Totals:
    """Totals of one traffic series since the worker's start, or since it was forgotten."""

    __slots__ = (
        "__weakref__",
        "closed",
        "exemplar",
        "failed",
        "kept",
        "labels",
        "opened",
        "received",
        "reported",
        "sent",
    )

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.kept = True
        self.reported = 0
        """Number of the last report it was in."""
        self.zero()

    def zero(self) -> None:
        """Begin again."""
        self.opened = self.closed = self.failed = self.received = self.sent = 0
        self.exemplar: Exemplar | None = None


class TrafficCounters:
    """Every series and named counter; `report` gives what changed since the last one. `limit`: series kept."""

    __slots__ = ("_changed", "_held", "_names", "_other", "_other_changed", "_report", "_series", "limit")

    def __init__(self, limit: int = SERIES_LIMIT) -> None:
        self.limit = limit
        self._series: dict[tuple[str, ...], Totals] = {}
        self._held: WeakValueDictionary[tuple[str, ...], Totals] = WeakValueDictionary()
        """Forgotten, but a connection or a cache still counts with it."""
        self._changed: set[Totals] = set()
        self._other: dict[str, int] = {}
        self._names: dict[str, int] = {}
        """How many label sets each metric has among these."""
        self._other_changed: set[str] = set()
        self._report = 0

    def __len__(self) -> int:
        return len(self._series)

    def series(self, labels: tuple[str, ...]) -> Totals:
        """The series with these labels, marked as changed; the one for overflow when there are too many."""
        totals = self._series.get(labels) or self._held.get(labels)
        if totals is None:
            if len(self._series) >= 2 * self.limit:
                self.count("telemetry_series_overflow")
                labels = overflow(labels)
            totals = self._series.setdefault(labels, Totals(labels))
        self.touch(totals)
        return totals

    def touch(self, totals: Totals) -> None:
        """A series that `series` gave out earlier is about to change again."""
        if not totals.kept:
            totals.kept = True
            self._series[totals.labels] = totals
            del self._held[totals.labels]
        self._changed.add(totals)

    def count(self, name: str, by: int = 1) -> None:
        """Add to a named counter; beyond a limit new label sets of a metric share one."""
        if name not in self._other:
            metric = name.partition("{")[0]
            if self._names.get(metric, 0) < _NAMES_LIMIT:
                self._names[metric] = self._names.get(metric, 0) + 1
            else:
                name = "telemetry_names_overflow"
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
        """Totals of everything that changed; None if nothing did. Forgets what is over the limit."""
        if not self._changed and not self._other_changed:
            return None
        self._report += 1
        series = tuple(
            Series(
                labels=t.labels,
                opened=t.opened,
                closed=t.closed,
                failed=t.failed,
                received=t.received,
                sent=t.sent,
                exemplar=t.exemplar,
            )
            for t in self._changed
        )
        for totals in self._changed:
            totals.reported = self._report
        other = {name: self._other[name] for name in self._other_changed}
        self._changed.clear()
        self._other_changed.clear()
        return Counters(series=series, other=other, gauges=gauges(), forgotten=self._forget())

    def _forget(self) -> tuple[tuple[str, ...], ...]:
        """Drop the series that changed longest ago, of those the smallest; touching one brings it back."""
        excess = len(self._series) - self.limit
        if excess <= 0:
            return ()
        oldest = sorted(self._series.values(), key=lambda t: (t.reported, t.opened + t.failed, t.received + t.sent))
        dropped = [totals for totals in oldest if not is_overflow(totals.labels)][:excess]
        for totals in dropped:
            del self._series[totals.labels]
            self._held[totals.labels] = totals
            totals.kept = False
            totals.zero()
        return tuple(totals.labels for totals in dropped)
