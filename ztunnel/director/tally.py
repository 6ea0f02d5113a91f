"""Totals of all workers added up so that no counter ever goes backwards when a worker dies and starts at zero again.

Pure: knows reports, not processes or sockets. A worker's incarnation is (slot, pid).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ztunnel.ipc.messages import Counters, Series

Labels = tuple[str, ...]
Amounts = tuple[int, int, int, int, int]
"""opened, closed, failed, received bytes, sent bytes."""

_ZERO: Amounts = (0, 0, 0, 0, 0)


@dataclass(slots=True)
class _Reported:
    """Totals since the start of one worker process."""

    pid: int
    series: dict[Labels, Amounts] = field(default_factory=dict)
    other: dict[str, int] = field(default_factory=dict)
    gauges: dict[str, float] = field(default_factory=dict)


class Tally:
    """What all workers of this director, living or dead, have counted."""

    def __init__(self) -> None:
        self._workers: dict[int, _Reported] = {}
        self._past = _Reported(0)

    def hello(self, slot: int, pid: int) -> None:
        """A worker (re)connected. Another pid on a slot: the earlier process is over, its totals are kept."""
        reported = self._workers.get(slot)
        if reported is not None and reported.pid == pid:
            return
        if reported is not None:
            for labels, amounts in reported.series.items():
                self._past.series[labels] = _sum(self._past.series.get(labels, _ZERO), amounts)
            for name, value in reported.other.items():
                self._past.other[name] = self._past.other.get(name, 0) + value
        self._workers[slot] = _Reported(pid)

    def gone(self, slot: int, pid: int) -> None:
        """The connection ended: its gauges no longer count, its totals do."""
        reported = self._workers.get(slot)
        if reported is not None and reported.pid == pid:
            reported.gauges.clear()

    def report(self, slot: int, pid: int, counters: Counters) -> None:
        """Take totals; reports of a process that was replaced meanwhile are ignored."""
        reported = self._workers.get(slot)
        if reported is None or reported.pid != pid:
            return
        reported.series.update((one.labels, _amounts(one)) for one in counters.series)
        reported.other.update(counters.other)
        reported.gauges = dict(counters.gauges)

    def series(self) -> Mapping[Labels, Amounts]:
        """Every traffic series, added up."""
        total = dict(self._past.series)
        for reported in self._workers.values():
            for labels, amounts in reported.series.items():
                total[labels] = _sum(total.get(labels, _ZERO), amounts)
        return total

    def other(self) -> Mapping[str, int]:
        """Every other counter, added up."""
        total = dict(self._past.other)
        for reported in self._workers.values():
            for name, value in reported.other.items():
                total[name] = total.get(name, 0) + value
        return total

    def gauges(self) -> Mapping[str, float]:
        """Gauges of connected workers, added up."""
        total: dict[str, float] = {}
        for reported in self._workers.values():
            for name, value in reported.gauges.items():
                total[name] = total.get(name, 0.0) + value
        return total


def _amounts(one: Series) -> Amounts:
    return (one.opened, one.closed, one.failed, one.received, one.sent)


def _sum(left: Amounts, right: Amounts) -> Amounts:
    return (left[0] + right[0], left[1] + right[1], left[2] + right[2], left[3] + right[3], left[4] + right[4])
