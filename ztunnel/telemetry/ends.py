"""What all connections between the same two workloads have in common, put together once: labels, series, log fields.

Looked up by the identity of the label values, which the worker's caches share between connections; an entry holds on
to its values, so an identity cannot come to mean something else while the entry is there.
"""

from __future__ import annotations

from typing import Final

from ambient.model.outcome import PeerLabels
from ambient.model.traffic import MUTUAL_TLS, is_overflow, traffic_labels
from ztunnel.ipc.flows import FlowEnds
from ztunnel.telemetry.access_log import together
from ztunnel.telemetry.counters import Totals, TrafficCounters
from ztunnel.telemetry.fields import Run
from ztunnel.telemetry.record import ConnectionRecord

NOBODY: Final = PeerLabels()
_LIMIT: Final = 4_096


class Ends:
    """Both sides of a connection, as one side reports them."""

    __slots__ = (
        "destination",
        "destination_fields",
        "destination_identity",
        "flow",
        "labels",
        "service",
        "source",
        "source_fields",
        "source_identity",
        "totals",
    )

    def __init__(self, record: ConnectionRecord, counters: TrafficCounters) -> None:
        self.source = source = record.source_peer or NOBODY
        self.destination = destination = record.destination_peer or NOBODY
        self.service = record.service
        self.source_identity = record.source_identity if record.mutual_tls else ""
        self.destination_identity = record.destination_identity
        self.labels = traffic_labels(
            "destination" if record.inbound else "source",
            source,
            self.source_identity,
            destination,
            self.destination_identity,
            self.service,
            security=MUTUAL_TLS if record.mutual_tls else "",
        )
        self.totals: Totals = counters.series(self.labels)
        self.flow = FlowEnds(
            "inbound" if record.inbound else "outbound",
            source.pod,
            source.namespace,
            self.source_identity,
            destination.pod,
            destination.namespace,
            self.destination_identity,
            self.service.hostname,
            "mutual_tls" if record.mutual_tls else "unknown",
        )
        self.source_fields = _fields(
            ("src.workload", source.pod),
            ("src.namespace", source.namespace),
            ("src.identity", self.source_identity),
            ("src.cluster", source.cluster),
        )
        self.destination_fields = _fields(
            ("dst.service", self.service.hostname),
            ("dst.workload", destination.pod),
            ("dst.namespace", destination.namespace),
            ("dst.identity", self.destination_identity if record.mutual_tls else ""),
            ("dst.cluster", destination.cluster),
            ("direction", "inbound" if record.inbound else "outbound"),
        )


def _fields(*fields: tuple[str, str]) -> Run:
    return together(*((key, value) for key, value in fields if value))


class EndsCache:
    """The entries in use; when there are too many it starts again."""

    __slots__ = ("_counters", "_known")

    def __init__(self, counters: TrafficCounters) -> None:
        self._counters = counters
        self._known: dict[tuple[object, ...], tuple[Ends, object, object, object]] = {}

    def of(self, record: ConnectionRecord) -> Ends:
        """The entry for the sides of a record as they are known now."""
        source, destination, service = record.source_peer, record.destination_peer, record.service
        key = (
            *(id(source), id(destination), id(service), record.inbound, record.mutual_tls),
            *(record.source_identity, record.destination_identity),
        )
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _LIMIT:
                self._known.clear()
            known = (Ends(record, self._counters), source, destination, service)
            # What was counted as overflow may have a series of its own next time.
            if not is_overflow(known[0].totals.labels):
                self._known[key] = known
        return known[0]
