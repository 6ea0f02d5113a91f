"""Totals of all workers added up, so that no counter goes backwards when a worker dies; bounded by label sets.

The busiest `limit` label sets are published one by one, all others together under the label value "overflow". What a
set counted before it got its own line stays in the overflow; a line that is given up ends, as that of a pod that is
gone: nothing is ever counted twice, so sums of rates are right. Pure: knows reports, not processes or sockets.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ambient.model.busiest import Busiest
from ambient.model.traffic import is_overflow, overflow
from ztunnel.ipc.messages import Counters, Exemplar, Series
from ztunnel.telemetry.counters import SERIES_LIMIT

Labels = tuple[str, ...]
Amounts = tuple[int, int, int, int, int]
"""opened, closed, failed, received bytes, sent bytes."""

_ZERO: Final[Amounts] = (0, 0, 0, 0, 0)
_DEAD_KEPT: Final = 4
"""Processes that hung up whose totals are remembered, should they come back (a broken connection, not a death)."""
_OCTETS_PER_CONNECTION: Final = 65_536
"""How many octets weigh as much as one connection when the busiest label sets are chosen."""


@dataclass(slots=True)
class Line:
    """One published label set."""

    amounts: Amounts = _ZERO
    exemplar: Exemplar | None = None


@dataclass(slots=True)
class _Reported:
    """Totals since the start of one worker process."""

    series: dict[Labels, Amounts] = field(default_factory=dict)
    other: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)


class Tally:
    """What all workers of this director, living or dead, have counted. `limit`: label sets with a line of their own."""

    def __init__(self, limit: int = SERIES_LIMIT) -> None:
        self._workers: dict[int, _Reported] = {}
        self._dead: OrderedDict[int, _Reported] = OrderedDict()
        self._lines = Busiest(limit, lambda labels: Line(), overflow)
        self._other: dict[str, int] = {}

    def hello(self, pid: int) -> None:
        """A worker (re)connected; what it has reported before is not counted again."""
        if pid not in self._workers:
            self._workers[pid] = self._dead.pop(pid) if pid in self._dead else _Reported()

    def gone(self, pid: int) -> None:
        """The connection ended: its gauges no longer count, its totals do."""
        reported = self._workers.pop(pid, None)
        if reported is not None:
            reported.gauges.clear()
            self._dead[pid] = reported
            if len(self._dead) > _DEAD_KEPT:
                self._dead.popitem(last=False)

    def report(self, pid: int, counters: Counters) -> None:
        """Take the totals of a process that said hello, on its way out or not."""
        reported = self._workers.get(pid)
        if reported is None:
            return
        for one in counters.series:
            self._take(reported, one)
        for labels in counters.forgotten:
            reported.series.pop(labels, None)
        for name, value in counters.other.items():
            before = reported.other.get(name, 0)
            self._other[name] = self._other.get(name, 0) + (value - before if value >= before else value)
        reported.other.update(counters.other)
        reported.gauges = dict(counters.gauges)

    def rank(self) -> None:
        """Give the lines of quiet label sets to busier ones that have none (from time to time)."""
        self._lines.rank()

    def lines(self) -> Mapping[Labels, Line]:
        """Every published label set."""
        return self._lines.items()

    def series(self) -> Mapping[Labels, Amounts]:
        """The amounts of every published label set."""
        return {labels: line.amounts for labels, line in self.lines().items()}

    def other(self) -> Mapping[str, int]:
        """Every other counter, added up."""
        return dict(self._other)

    def gauges(self) -> Mapping[str, float]:
        """Gauges of connected workers, added up."""
        total: dict[str, float] = {}
        for reported in self._workers.values():
            for name, value in reported.gauges.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def _take(self, reported: _Reported, one: Series) -> None:
        labels, amounts = one.labels, _amounts(one)
        before = reported.series.get(labels)
        if before is None:
            # Most label values come again and again: one copy of each is enough.
            labels, before = tuple(map(sys.intern, labels)), _ZERO
        reported.series[labels] = amounts
        grown = _less(amounts, before)
        weight = grown[0] + grown[2] + (grown[3] + grown[4]) / _OCTETS_PER_CONNECTION
        line = self._lines.rest(labels) if is_overflow(labels) else self._lines.at(labels, weight)
        line.amounts = _sum(line.amounts, grown)
        line.exemplar = one.exemplar or line.exemplar


def _amounts(one: Series) -> Amounts:
    return (one.opened, one.closed, one.failed, one.received, one.sent)


def _sum(left: Amounts, right: Amounts) -> Amounts:
    return (left[0] + right[0], left[1] + right[1], left[2] + right[2], left[3] + right[3], left[4] + right[4])


def _less(now: Amounts, before: Amounts) -> Amounts:
    """What came on top. A figure below the last one means that its process began again."""
    if any(a < b for a, b in zip(now, before, strict=True)):
        return now
    return (now[0] - before[0], now[1] - before[1], now[2] - before[2], now[3] - before[3], now[4] - before[4])
