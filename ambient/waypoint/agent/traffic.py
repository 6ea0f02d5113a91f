"""Istio's standard metrics of requests and connections, counted from the lines that Envoy writes of them. No I/O.

Label sets are bounded: the busiest have lines of their own, the others one together, under "overflow"; how often that
had to be is counted too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from ambient.model.baggage import LONGEST, baggage_labels
from ambient.model.busiest import Busiest, Key
from ambient.model.outcome import PeerLabels, ServiceLabels
from ambient.model.traffic import MUTUAL_TLS, OVERFLOW, TRAFFIC, traffic_labels
from ambient.waypoint.agent.lines import Line

LIMIT: Final = 1000
"""Label sets of requests, and of connections, with lines of their own."""
_BUCKETS: Final = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000)
_BUCKETS_WIDE: Final = (*_BUCKETS, 300_000, 600_000, 1_800_000, 3_600_000)
"""Envoy's own, which Istio keeps, of milliseconds and of bytes alike."""
_REPORTER: Final = "waypoint"
_LABELS: Final = TRAFFIC[: TRAFFIC.index("request_protocol")]
REQUEST_LABELS: Final = (
    *_LABELS,
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
)
TCP_LABELS: Final = (*_LABELS, "request_protocol", "response_flags", "connection_security_policy")
_KEYS_KEPT: Final = 4096
_OPENED: Final = "TcpUpstreamConnected"
_GOES_ON: Final = "TcpPeriodic"


@dataclass(slots=True)
class Histogram:
    """`counts` per bucket, the last of them for what is beyond all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS_WIDE) + 1))
    total: int = 0

    def add(self, value: int) -> None:
        self.counts[bisect_left(_BUCKETS_WIDE, value)] += 1
        self.total += value


@dataclass(slots=True)
class Requests:
    """`labels` as they stand in the exposition."""

    labels: str
    count: int = 0
    duration: Histogram = field(default_factory=Histogram)
    request: Histogram = field(default_factory=Histogram)
    response: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class Connections:
    labels: str
    opened: int = 0
    closed: int = 0
    received: int = 0
    sent: int = 0


class Traffic:
    """`take` every line; `render` the text exposition."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._requests = Busiest(limit, lambda key: Requests(_text(REQUEST_LABELS, key)), _rest_of_requests)
        self._connections = Busiest(limit, lambda key: Connections(_text(TCP_LABELS, key)), _rest_of_connections)
        self._keys: dict[tuple[object, ...], Key] = {}
        """Labels by what a line says that they are made of: nearly every line says what one before it has said."""
        self._open: dict[int, tuple[int, int]] = {}
        """Bytes of each open connection that are counted already, by Envoy's number for it."""
        self._connects: dict[int, int] = {}

    def take(self, line: Line) -> None:
        if line.log == "http":
            self._request(line)
        elif line.log == "tcp":
            self._connection(line)
        elif line.log == "connect":
            status = line.status or 0
            self._connects[status] = self._connects.get(status, 0) + 1

    def _request(self, line: Line) -> None:
        row = self._requests.at(self._key(line))
        row.count += 1
        row.duration.add(line.duration_ms or 0)
        row.request.add(line.wire_received)
        row.response.add(line.wire_sent)

    def _connection(self, line: Line) -> None:
        row = self._connections.at(self._key(line))
        before = self._open.get(line.connection)
        if before is None:
            row.opened += 1
        received, sent = before or (0, 0)
        row.received += max(line.received - received, 0)
        row.sent += max(line.sent - sent, 0)
        if line.kind in (_OPENED, _GOES_ON):
            self._open[line.connection] = (line.received, line.sent)
        else:
            self._open.pop(line.connection, None)
            row.closed += 1

    def _key(self, line: Line) -> Key:
        """The labels of a request or connection."""
        grpc = _grpc_status(line)
        ends = (line.peer, line.source, line.service, line.namespace, line.destination, line.upstream_peer)
        said = (line.log, ends, line.flags, line.status, grpc)
        found = self._keys.get(said)
        if found is None:
            if len(self._keys) >= _KEYS_KEPT:
                self._keys.clear()
            found = self._keys[said] = _labels(line, grpc)
        return found

    def render(self) -> Iterator[str]:
        """Lines of the exposition; label sets are weighed anew."""
        yield from _counter("istio_requests_total", ((row.labels, row.count) for row in self._requests.values()))
        for name, of in _HISTOGRAMS.items():
            yield f"# TYPE {name} histogram\n"
            for row in self._requests.values():
                yield from _histogram(name, row.labels, getattr(row, of))
        for name, of in _TCP.items():
            yield from _counter(name, ((row.labels, getattr(row, of)) for row in self._connections.values()))
        connects = ((f'status="{status}"', count) for status, count in sorted(self._connects.items()))
        yield from _counter("ambient_waypoint_connects_total", connects)
        overflowed = {"requests": self._requests.overflowed, "connections": self._connections.overflowed}
        told = ((f'of="{name}"', count) for name, count in overflowed.items())
        yield from _counter("ambient_waypoint_series_overflow_total", told)
        self._requests.rank()
        self._connections.rank()


_HISTOGRAMS: Final = {
    "istio_request_duration_milliseconds": "duration",
    "istio_request_bytes": "request",
    "istio_response_bytes": "response",
}
_TCP: Final = {
    "istio_tcp_connections_opened_total": "opened",
    "istio_tcp_connections_closed_total": "closed",
    "istio_tcp_received_bytes_total": "received",
    "istio_tcp_sent_bytes_total": "sent",
}


def _grpc_status(line: Line) -> str | None:
    """None where it is no gRPC, "" where nothing is said."""
    if line.content_type is None or not line.content_type.startswith("application/grpc"):
        return None
    return "" if line.grpc_status is None else str(line.grpc_status)[:LONGEST]


def _labels(line: Line, grpc: str | None) -> Key:
    flags = line.flags or "-"
    if line.log != "http":
        return (*_ends(line), "tcp", flags, MUTUAL_TLS)
    spoken = "http" if grpc is None else "grpc"
    return (*_ends(line), spoken, str(line.status or 0), grpc or "", flags, MUTUAL_TLS)


def _ends(line: Line) -> tuple[str, ...]:
    """The labels of client and server."""
    peer = line.peer or ""
    hostname, namespace = line.service, line.namespace
    short = hostname.partition(".")[0] if f".{namespace}.svc." in hostname else hostname
    labels = traffic_labels(
        _REPORTER,
        _source(line.source or "", peer),
        peer,
        _destination(line.destination or ""),
        line.upstream_peer or "",
        ServiceLabels(hostname, namespace, short),
        security=MUTUAL_TLS,
    )
    return labels[: len(_LABELS)]


def _source(baggage: str, peer: str) -> PeerLabels:
    """What the client's ztunnel says of it. Its namespace is the certificate's: that is proven."""
    told = baggage_labels((baggage,))
    return PeerLabels(
        workload=told.workload,
        namespace=_namespace(peer) or told.namespace,
        canonical_service=told.canonical_service,
        canonical_revision=told.canonical_revision,
        cluster=told.cluster,
    )


def _destination(told: str) -> PeerLabels:
    """Of an endpoint's metadata (`Backend.told`)."""
    parts = told.split(";")
    if len(parts) != 5:
        return PeerLabels()
    workload, namespace, canonical, revision, cluster = parts
    return PeerLabels(
        workload=workload,
        namespace=namespace,
        canonical_service=canonical,
        canonical_revision=revision,
        cluster=cluster,
    )


def _namespace(principal: str) -> str:
    parts = principal.split("/")
    return parts[4] if len(parts) == 7 and parts[3] == "ns" else ""


def _rest(key: Key, kept: int) -> Key:
    """All of a key but its last `kept` labels gives way; reporter and what of those has few values stays."""
    return (key[0], *[OVERFLOW] * (len(key) - 1 - kept), *key[len(key) - kept :])


def _rest_of_requests(key: Key) -> Key:
    code = f"{key[-4][:1]}xx" if key[-4] not in ("0", "401", "403", "429", "503") else key[-4]
    return (*_rest(key, 5)[:-4], code, OVERFLOW if key[-3] else "", key[-2], key[-1])


def _rest_of_connections(key: Key) -> Key:
    return _rest(key, 3)


def _text(names: Iterable[str], values: Key) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _counter(name: str, rows: Iterable[tuple[str, int]]) -> Iterator[str]:
    yield f"# TYPE {name} counter\n"
    for labels, value in rows:
        yield f"{name}{{{labels}}} {value}\n"


def _histogram(name: str, labels: str, found: Histogram) -> Iterator[str]:
    below = 0
    for bound, count in zip(_BUCKETS_WIDE, found.counts, strict=False):
        below += count
        yield f'{name}_bucket{{{labels},le="{bound}"}} {below}\n'
    below += found.counts[-1]
    yield f'{name}_bucket{{{labels},le="+Inf"}} {below}\n'
    yield f"{name}_sum{{{labels}}} {found.total}\n{name}_count{{{labels}}} {below}\n"
