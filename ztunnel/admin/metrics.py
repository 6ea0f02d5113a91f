"""What the stats port publishes: Istio's metrics by Istio's names, ours with the prefix `ambient_` (interop 7.6)."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from ztunnel import VERSION
from ztunnel.admin.traffic import traffic_text
from ztunnel.director.tally import Tally

_CREATED: Final = re.compile(rb"[a-z0-9_]+_created[ {]")
"""Samples that prometheus-client adds and Istio's ztunnel does not have."""
_END: Final = b"# EOF\n"
_OURS: Final = ("istio_", "workload_manager_", "ambient_")
_HISTOGRAM: Final = re.compile(r"(.+_seconds)_(bucket|micros)(\{.*\})?")
"""How workers write a histogram as counters: one `_bucket` per `le` (not cumulative), and the sum in microseconds."""


class Stats:
    """The director's own counters and the registry that joins them with the workers'."""

    def __init__(self, tally: Tally, gauges: Callable[[], Mapping[str, float]]) -> None:
        """`gauges()`: current values of the director by metric name (labels may follow in braces)."""
        self._tally = tally
        self.registry = CollectorRegistry()
        self.registry.register(_Process())
        self.registry.register(_Published(tally, gauges))
        self.xds_terminations = self._counter(
            "istio_xds_connection_terminations", "The total number of completed connections to xds server.", "reason"
        )
        self._xds_messages = self._counter("istio_xds_message", "Total number of messages received.", "url")
        self._xds_octets = self._counter("istio_xds_message_bytes", "Total number of bytes received.", "url")
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
        self._spans_sent = self._counter("ambient_spans_sent", "Spans that a receiver has taken.")
        self._spans_lost = self._counter("ambient_spans_lost", "Flow records that became no span.", "reason")
        self.worker_starts = self._counter("ambient_worker_connections", "Connections of workers to the director.")

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self.registry)

    def discovery_message(self, url: str, octets: int) -> None:
        """A response of so many octets arrived from the control plane."""
        self._xds_messages.labels(url=url).inc()
        self._xds_octets.labels(url=url).inc(octets)

    def spans_sent(self, count: int) -> None:
        """A receiver has taken so many spans."""
        self._spans_sent.inc(count)

    def spans_lost(self, count: int, reason: str) -> None:
        """So many flow records (or spans, where the receiver counted) are lost."""
        self._spans_lost.labels(reason=reason).inc(count)

    def render(self, *, exemplars: bool = False) -> bytes:
        """The text of /metrics: OpenMetrics, which Prometheus' text parser reads as well as long as no exemplars are
        in it."""
        return self.snapshot(exemplars=exemplars)()

    def snapshot(self, *, exemplars: bool) -> Callable[[], bytes]:
        """What is known now; the large part is rendered when the result is called, which a thread may do."""
        full: bytes = generate_latest(self.registry)  # type: ignore[no-untyped-call]
        rest = b"\n".join(line for line in full.split(b"\n") if not _CREATED.match(line)).removesuffix(_END)
        lines = self._tally.lines()
        return lambda: rest + traffic_text(lines, exemplars=exemplars).encode() + _END


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
    """The workers' other counters, histograms and gauges, and the director's gauges."""

    def __init__(self, tally: Tally, gauges: Callable[[], Mapping[str, float]]) -> None:
        self._tally = tally
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        plain, histograms = [], {}
        for full, value in self._tally.other().items():
            if _HISTOGRAM.fullmatch(full):
                histograms[full] = value
            else:
                plain.append((full, float(value)))
        yield from _families(plain, counter=True)
        yield from _histograms(histograms)
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


def _histograms(rows: Mapping[str, int]) -> Iterator[Metric]:
    found: dict[str, dict[tuple[str, ...], tuple[dict[str, str], dict[str, int], float]]] = {}
    for full, value in rows.items():
        name, labels = split_name(full)
        bound = labels.pop("le", "")
        family = found.setdefault(name.removesuffix("_micros").removesuffix("_bucket"), {})
        key = tuple(labels.values())
        labels, buckets, total = family.get(key, (labels, {}, 0.0))
        if bound:
            buckets[bound] = value
        else:
            total = value / 1e6
        family[key] = (labels, buckets, total)
    for name, family in found.items():
        names = tuple(next(iter(family.values()))[0])
        metric = HistogramMetricFamily(name, f"{name.replace('_', ' ')}.", labels=names)
        for labels, buckets, total in family.values():
            running, cumulative = 0, []
            for bound in sorted(buckets, key=float):
                running += buckets[bound]
                cumulative.append((bound, running))
            metric.add_metric(tuple(labels.values()), cumulative, total)
        yield metric


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
