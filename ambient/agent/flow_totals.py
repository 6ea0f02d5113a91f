"""What the flows of the node come to since the agent began, by who talks to whom, as metrics. No I/O.

Bounded: who is told by namespace and service account ("unknown": no workload that this node knows), and after MOST
pairs new ones are added up under the name "other", as is what the kernel added up because a pod had used up its share
of a sheet: neither a scan of addresses nor a large mesh makes more series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from ambient.agent.naming import WorkloadAt, protocol_name
from ambient.datapath.layout import End
from ambient.datapath.tallies import Line
from ambient.model.address import IpAddress

MOST: Final = 1000
"""Pairs that have series of their own."""
_OTHER: Final = "other"


class Pair(NamedTuple):
    """Who talks to whom: the labels of a series, in this order."""

    source: str
    destination: str
    protocol: str
    direction: str
    path: str


class Totals(NamedTuple):
    """As the columns of a sheet."""

    bytes_sent: int = 0
    bytes_received: int = 0
    packets_sent: int = 0
    packets_received: int = 0
    retransmitted: int = 0
    rtt_us: int = 0
    rtts: int = 0


_FAMILIES: Final[Mapping[str, tuple[str, str]]] = {
    "bytes_sent": ("ambient_flow_sent_bytes_total", "Bytes that the source sent (UDP and ICMP: with their headers)."),
    "bytes_received": ("ambient_flow_received_bytes_total", "Bytes that the source received."),
    "packets_sent": ("ambient_flow_sent_packets_total", "Packets that the source sent."),
    "packets_received": ("ambient_flow_received_packets_total", "Packets that the source received."),
    "retransmitted": ("ambient_flow_retransmitted_total", "TCP segments that the pod of this node sent again."),
    "rtt_us": ("ambient_flow_round_trip_microseconds_total", "Smoothed round trips, added up."),
    "rtts": ("ambient_flow_round_trips_total", "How many round trips were added up."),
}


class FlowTotals:
    """`most` pairs have series of their own."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._sums: dict[Pair, Totals] = {}
        self._flows: dict[tuple[Pair, End], int] = {}

    def add(self, lines: Iterable[Line], workload: WorkloadAt) -> None:
        names: dict[IpAddress, str] = {}

        def name(ip: IpAddress) -> str:
            found = names.get(ip)
            if found is None:
                found = names[ip] = _name(ip, workload)
            return found

        for line in lines:
            pair = self._known(
                Pair(
                    name(line.source),
                    name(line.destination),
                    protocol_name(line.protocol),
                    "inbound" if line.arriving else "outbound",
                    line.path.name.lower(),
                )
            )
            before = self._sums.get(pair, Totals())
            added = (getattr(line, column) for column in Totals._fields)
            self._sums[pair] = Totals(*(a + b for a, b in zip(before, added, strict=True)))
            if line.flows:
                key = (pair, line.end)
                self._flows[key] = self._flows.get(key, 0) + line.flows

    def _known(self, pair: Pair) -> Pair:
        if pair in self._sums or len(self._sums) < self._most:
            return pair
        return pair._replace(source=_OTHER, destination=_OTHER)

    def series(self) -> Iterator[str]:
        """Lines of Prometheus text."""
        name = "ambient_flows_total"
        yield f"# HELP {name} Flows of the node's pods that began (end none) or ended, by how."
        yield f"# TYPE {name} counter"
        for (pair, end), count in sorted(self._flows.items()):
            yield f'{name}{{{_labels(pair)},end="{end.name.lower()}"}} {count}'
        for column, (name, text) in _FAMILIES.items():
            yield f"# HELP {name} {text}"
            yield f"# TYPE {name} counter"
            for pair, sums in sorted(self._sums.items()):
                if value := getattr(sums, column):
                    yield f"{name}{{{_labels(pair)}}} {value}"


def _name(ip: IpAddress, workload: WorkloadAt) -> str:
    if ip.is_unspecified:
        return _OTHER
    its = workload(ip)
    return "unknown" if its is None else f"{its.namespace}/{its.service_account}"


def _labels(pair: Pair) -> str:
    return ",".join(f'{label}="{value}"' for label, value in zip(Pair._fields, pair, strict=True))
