"""The text of what the stats port publishes, but for the traffic: Istio's metrics by Istio's names, ours with the
prefix `ambient_` (interop 7.6). OpenMetrics 1.0, written as it is: a library for it is three megabytes per director."""

from __future__ import annotations

import math
import os
import re
import resource
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ztunnel import VERSION
from ztunnel.director.tally import Tally

if TYPE_CHECKING:
    from ztunnel.admin.stats import Count

END: Final = b"# EOF\n"
_OURS: Final = ("istio_", "workload_manager_", "ambient_")
_HISTOGRAM: Final = re.compile(r"(.+_seconds)_(bucket|micros)(\{.*\})?")
"""How workers write a histogram as counters: one `_bucket` per `le` (not cumulative), and the sum in microseconds."""
_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_:]")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(slots=True)
class _Family:
    """A metric with its samples: what follows its name, labels, value."""

    name: str
    help: str
    kind: str
    samples: list[tuple[str, Mapping[str, str], float]] = field(default_factory=list)

    def text(self) -> str:
        name = _NOT_IN_NAMES.sub("_", self.name)
        lines = [f"# HELP {name} {self.help.translate(_ESCAPES)}\n# TYPE {name} {self.kind}\n"]
        lines += [f"{name}{suffix}{_labels(labels)} {_number(value)}\n" for suffix, labels, value in self.samples]
        return "".join(lines)


def render(counts: Iterable[Count], tally: Tally, gauges: Mapping[str, float]) -> bytes:
    """All but the workers' traffic, without the end. `gauges`: the director's."""
    plain: list[tuple[str, float]] = []
    histograms: dict[str, int] = {}
    for full, value in tally.other().items():
        if _HISTOGRAM.fullmatch(full):
            histograms[full] = value
        else:
            plain.append((full, value))
    families = [
        *_process(),
        *_families(plain, "counter"),
        *_histograms(histograms),
        *_families([*tally.gauges().items(), *gauges.items()], "gauge"),
        *_counted(counts),
    ]
    return "".join(family.text() for family in families).encode()


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = [f'{_NOT_IN_NAMES.sub("_", name)}="{value.translate(_ESCAPES)}"' for name, value in sorted(labels.items())]
    return "{" + ",".join(pairs) + "}"


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else f"{value:+}".title()


def _process() -> Iterator[_Family]:
    """File descriptors and build, as Istio's ztunnel publishes them."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir("/proc/self/fd"))
    yield _Family("process_open_fds", "Number of open file descriptors", "gauge", [("", {}, open_now)])
    yield _Family("process_max_fds", "Maximum number of file descriptors", "gauge", [("", {}, limit)])
    build = {"component": "ztunnel", "tag": VERSION}
    yield _Family("istio_build", "Istio component build info.", "gauge", [("", build, 1)])


def _counted(counts: Iterable[Count]) -> Iterator[_Family]:
    """The director's own counters."""
    for count in counts:
        family = _Family(count.name, count.help, "counter")
        for of, total in count.totals.items():
            family.samples.append(("_total", {count.label: of} if count.label else {}, total))
        yield family


def _families(rows: Iterable[tuple[str, float]], kind: str) -> Iterable[_Family]:
    families: dict[str, _Family] = {}
    for full, value in rows:
        name, labels = split_name(full)
        family = families.setdefault(name, _Family(name, f"{name.replace('_', ' ')}.", kind))
        family.samples.append(("_total" if kind == "counter" else "", labels, value))
    return families.values()


def _histograms(rows: Mapping[str, int]) -> Iterator[_Family]:
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
        metric = _Family(name, f"{name.replace('_', ' ')}.", "histogram")
        for labels, buckets, total in family.values():
            running = 0
            for bound in sorted(buckets, key=float):
                running += buckets[bound]
                metric.samples.append(("_bucket", {**labels, "le": bound}, running))
            metric.samples += [("_count", labels, running), ("_sum", labels, total)]
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
