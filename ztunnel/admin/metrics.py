"""The text of what the stats port publishes: Istio's metrics by Istio's names, ours with the prefix `ambient_` (interop
7.6). Imported with the first scrape."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.registry import Collector

from ztunnel import VERSION
from ztunnel.admin.stats import Count
from ztunnel.director.tally import Tally

END: Final = b"# EOF\n"
_OURS: Final = ("istio_", "workload_manager_", "ambient_")
_HISTOGRAM: Final = re.compile(r"(.+_seconds)_(bucket|micros)(\{.*\})?")
"""How workers write a histogram as counters: one `_bucket` per `le` (not cumulative), and the sum in microseconds."""


def render(counts: Iterable[Count], tally: Tally, gauges: Mapping[str, float]) -> bytes:
    """All but the workers' traffic, up to and without the end."""
    registry = CollectorRegistry()
    for collector in (_Process(), _Published(tally, gauges), _Counted(counts)):
        registry.register(collector)
    full: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return full.removesuffix(END)


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

    def __init__(self, tally: Tally, gauges: Mapping[str, float]) -> None:
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
        yield from _families([*self._tally.gauges().items(), *self._gauges.items()], counter=False)


class _Counted(Collector):
    """The director's own counters."""

    def __init__(self, counts: Iterable[Count]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        for count in self._counts:
            labels = (count.label,) if count.label else ()
            family = CounterMetricFamily(count.name, count.help, labels=labels)
            for of, total in count.totals.items():
                family.add_metric((of,) if labels else (), total)
            yield family


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
