"""What the stats port publishes: Istio's metrics by Istio's names, ours with the prefix `ambient_` (interop 7.6)."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from ztunnel import VERSION
from ztunnel.director.tally import Tally
from ztunnel.telemetry.labels import TRAFFIC

_TRAFFIC_METRICS: Final = (
    ("istio_tcp_connections_opened", "The total number of TCP connections opened."),
    ("istio_tcp_connections_closed", "The total number of TCP connections closed."),
    ("istio_tcp_connections_failed", "The total number of TCP connections that failed to establish a connection."),
    ("istio_tcp_received_bytes", "The size of total bytes received during request in case of a TCP connection."),
    ("istio_tcp_sent_bytes", "The size of total bytes sent during response in case of a TCP connection."),
)
_CREATED: Final = re.compile(rb"[a-z0-9_]+_created[ {]")
"""Samples that prometheus-client adds and Istio's ztunnel does not have."""
_OURS: Final = ("istio_", "workload_manager_", "ambient_")


class Stats:
    """The director's own counters and the registry that joins them with the workers'."""

    def __init__(self, tally: Tally, gauges: Callable[[], Mapping[str, float]]) -> None:
        """`gauges()`: current values of the director by metric name (labels may follow in braces)."""
        self.registry = CollectorRegistry()
        self.registry.register(_Process())
        self.registry.register(_Published(tally, gauges))
        self.xds_terminations = self._counter(
            "istio_xds_connection_terminations", "The total number of completed connections to xds server.", "reason"
        )
        self.xds_messages = self._counter("istio_xds_message", "Total number of messages received.", "url")
        self.proxies_started = self._counter(
            "workload_manager_proxies_started", "The total number of proxies that were started."
        )
        self.proxies_stopped = self._counter(
            "workload_manager_proxies_stopped", "The total number of proxies that were stopped."
        )
        self.certificates = self._counter("ambient_certificate_requests", "Certificate requests.", "result")
        self.snapshot_failures = self._counter(
            "ambient_snapshot_failures", "Discovery snapshots that were not written."
        )
        self.worker_starts = self._counter("ambient_worker_connections", "Connections of workers to the director.")

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self.registry)

    def render(self) -> bytes:
        """The text of /metrics (OpenMetrics, which Prometheus' text parser reads as well)."""
        full: bytes = generate_latest(self.registry)  # type: ignore[no-untyped-call]
        return b"\n".join(line for line in full.split(b"\n") if not _CREATED.match(line))


class _Process(Collector):
    """File descriptors and build, as Istio's ztunnel publishes them."""

    def collect(self) -> Iterator[Metric]:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        open_now = len(os.listdir("/proc/self/fd"))
        yield GaugeMetricFamily("process_open_fds", "Number of open file descriptors", open_now)
        yield GaugeMetricFamily("process_max_fds", "Maximum number of file descriptors", limit)
        build = GaugeMetricFamily("istio_build", "Istio component build info.", labels=("component", "tag"))
        build.add_metric(("ztunnel", VERSION), 1)
        yield build


class _Published(Collector):
    """The workers' totals and the director's gauges."""

    def __init__(self, tally: Tally, gauges: Callable[[], Mapping[str, float]]) -> None:
        self._tally = tally
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        series = self._tally.series()
        for index, (name, help_) in enumerate(_TRAFFIC_METRICS):
            metric = CounterMetricFamily(name, help_)
            for labels, amounts in series.items():
                # A counter appears with its first event, as Istio's do.
                if amounts[index] or index != 2:
                    names = TRAFFIC[: len(labels)]
                    metric.add_sample(f"{name}_total", dict(zip(names, labels, strict=True)), amounts[index])
            yield metric
        yield from _families(self._tally.other().items(), counter=True)
        yield from _families([*self._tally.gauges().items(), *self._gauges().items()], counter=False)


def _families(rows: Iterable[tuple[str, float]], *, counter: bool) -> Iterator[Metric]:
    families: dict[str, Metric] = {}
    for full, value in rows:
        name, labels = split_name(full)
        if name not in families:
            kind = CounterMetricFamily if counter else GaugeMetricFamily
            families[name] = kind(name, f"{name.replace('_', ' ')}.")
        families[name].add_sample(f"{name}_total" if counter else name, labels, value)
    yield from families.values()


def split_name(full: str) -> tuple[str, dict[str, str]]:
    """Metric name (with our prefix where none is there) and labels of `name{key="value",...}`."""
    name, brace, rest = full.partition("{")
    name = name.removesuffix("_total")
    if not name.startswith(_OURS):
        name = f"ambient_{name}"
    labels = {}
    for pair in rest.rstrip("}").split(",") if brace else ():
        key, _, value = pair.partition("=")
        if key:
            labels[key.strip()] = value.strip().strip('"')
    return name, labels
