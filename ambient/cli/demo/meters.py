"""Reading a node's Prometheus metrics: the traffic counters between two principals."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SAMPLE = re.compile(r"^(\w+)\{(.*)\} ([0-9.e+-]+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

COUNTERS = (
    "istio_tcp_connections_opened_total",
    "istio_tcp_connections_closed_total",
    "istio_tcp_received_bytes_total",
    "istio_tcp_sent_bytes_total",
)


def traffic(text: str, wanted: Mapping[str, str]) -> dict[str, float]:
    """The sum of each of COUNTERS over the series whose labels are as `wanted`."""
    sums = dict.fromkeys(COUNTERS, 0.0)
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample is None or sample[1] not in sums:
            continue
        labels = dict(_LABEL.findall(sample[2]))
        if all(labels.get(key) == value for key, value in wanted.items()):
            sums[sample[1]] += float(sample[3])
    return sums
