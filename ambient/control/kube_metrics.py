"""How the control plane fares with the Kubernetes API, read when somebody scrapes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ambient.kube.api.source import ApiSource

_PREFIX: Final = "ambient_control_kube"


class SourceCollector(Collector):
    """Series of one source: watches by kind, the queue of status writes, the lease."""

    def __init__(self, source: ApiSource) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        events = CounterMetricFamily(f"{_PREFIX}_events", "Watch events received, by kind.", labels=["kind"])
        late = CounterMetricFamily(f"{_PREFIX}_late_events", "Events that came twice or too late.", labels=["kind"])
        restarts = CounterMetricFamily(f"{_PREFIX}_watch_restarts", "Watches opened again.", labels=["kind"])
        relists = CounterMetricFamily(f"{_PREFIX}_relists", "Complete lists after the first.", labels=["kind"])
        failing = GaugeMetricFamily(f"{_PREFIX}_failing", "1: the kind cannot be read now.", labels=["kind"])
        age = GaugeMetricFamily(
            f"{_PREFIX}_silence_seconds", "Since the server was last heard about the kind.", labels=["kind"]
        )
        now = time.monotonic()
        for kind, follower in self._source.followers.items():
            events.add_metric([kind], follower.events)
            late.add_metric([kind], follower.core.stale)
            restarts.add_metric([kind], max(follower.opened - 1, 0))
            relists.add_metric([kind], follower.core.relists)
            failing.add_metric([kind], float(bool(follower.core.trouble)))
            age.add_metric([kind], now - follower.alive_at if follower.alive_at else 0.0)
        yield from (events, late, restarts, relists, failing, age)
        sink = self._source.sink
        yield GaugeMetricFamily("ambient_control_status_waiting", "Objects whose status waits.", value=sink.waiting)
        yield CounterMetricFamily("ambient_control_status_written", "Objects whose status was written.", sink.written)
        yield CounterMetricFamily("ambient_control_status_failed", "Status writes given up.", value=sink.failed)
        leading = float(self._source.leading())
        yield GaugeMetricFamily("ambient_control_leading", "1: this replica writes.", value=leading)
