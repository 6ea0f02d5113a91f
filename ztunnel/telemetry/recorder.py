"""Keeps the open records of a worker and turns their openings and closings into series, log lines and flow records."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import Final

from ambient.model.address import Endpoint, IpAddress
from ambient.model.traffic import with_flags
from ztunnel.ipc.flows import FlowEvent, pack
from ztunnel.ipc.messages import Exemplar, Flows, LiveConnection
from ztunnel.telemetry.access_log import LogWriter
from ztunnel.telemetry.counters import TrafficCounters
from ztunnel.telemetry.ends import Ends, EndsCache
from ztunnel.telemetry.fields import Bare, Field, Item, bare
from ztunnel.telemetry.record import ConnectionRecord, Failure, Flag, shown

_FLOW_LIMIT: Final = 20_000
_PACKED_AT_ONCE: Final = 256
"""Flow records that wait to be packed: as objects they take three times the memory, and all at once is milliseconds."""
_LABELS_WAIT_S: Final = 1.0
"""How long a connection that runs already waits for its peer's labels before it is counted without them."""


class Recorder:
    """`clock` is monotonic, `wall` is unix time, both in seconds."""

    def __init__(
        self,
        log: LogWriter,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.counters = TrafficCounters()
        self.log = log
        self.node = ""
        self._clock = clock
        self._wall = wall
        self._open: dict[ConnectionRecord, None] = {}
        self._ends = EndsCache(self.counters)
        self._flows: list[FlowEvent] = []
        self._flow_ends: dict[Ends, int] = {}
        """Those of the records that wait, and their places among them."""
        self._packed: list[Flows] = []
        self._flows_kept = 0
        self._flows_lost = 0
        self._moved: dict[tuple[str, bool, IpAddress | None], None] = {}

    @property
    def open_count(self) -> int:
        return len(self._open)

    def open(self, pod_uid: str, source: Endpoint, destination: Endpoint, *, inbound: bool) -> ConnectionRecord:
        """Begin the record of an accepted connection (for a tunnel: of one of its streams)."""
        record = ConnectionRecord(pod_uid, source, destination, inbound=inbound, now=self._clock(), unix=self._wall())
        self._open[record] = None
        return record

    def established(self, record: ConnectionRecord) -> None:
        """Both sides are known (or will never be): count it as opened. Later calls change nothing."""
        if record.traffic is not None:
            return
        ends = self._ends.of(record)
        record.traffic, record.totals = ends.labels, ends.totals
        self.counters.touch(ends.totals)
        ends.totals.opened += 1
        if self.log.enabled("debug", "access"):
            self.log.log("debug", "access", "connection opened", self._fields(record, ends))
        self._flow("opened", record, None, ends)

    def close(self, record: ConnectionRecord, failure: Failure | None = None) -> None:
        """End the record; every call after the first is ignored."""
        if self._open.pop(record, self) is self:
            return
        record.failure = failure
        self.established(record)
        counted = self._count_octets(record)
        totals = record.totals
        assert record.traffic is not None
        assert totals is not None
        if failure is None:
            if not counted:
                self.counters.touch(totals)
        else:
            totals = self.counters.series(with_flags(record.traffic, failure.flag))
            totals.failed += 1
            totals.exemplar = Exemplar(
                unix=self._wall(), reason=failure.reason, policy=failure.policy, trace_id=record.trace_id
            )
        totals.closed += 1
        ends = self._ends.of(record)
        if self.log.enabled("error" if failure else "info", "access"):
            fields = self._fields(record, ends)
            received, sent = record.octets()
            mine, theirs = (sent, received) if record.inbound else (received, sent)
            fields.append(("bytes_sent", mine))
            fields.append(("bytes_recv", theirs))
            fields.append(("duration", f"{int((self._clock() - record.opened_at) * 1000)}ms"))
            if failure is not None:
                fields.append(("error", failure.text))
                if failure.policy:
                    fields.append(("policy", failure.policy))
                if failure.reason:
                    fields.append(("reason", failure.reason))
                if failure.detail:
                    fields.append(("detail", failure.detail))
            self.log.log("error" if failure else "info", "access", "connection complete", fields)
        event = "closed" if failure is None else "denied" if failure.flag is Flag.DENY else "failed"
        self._flow(event, record, failure, ends)
        record.meter = None

    def refused(self, source: Endpoint, destination: str, direction: str, error: str) -> None:
        """A connection that failed before there was a context for a record."""
        self.counters.count(f"refused_{direction}")
        fields: list[Field] = [("src.addr", bare(str(source))), ("dst.addr", bare(destination))]
        fields += [("direction", direction), ("error", error)]
        self.log.log("warn", "access", "connection failed", fields)

    def count_live(self) -> None:
        """Bring the octet counters of open connections up to date (once a second)."""
        now = self._clock()
        for record in self._open:
            if record.traffic is None and record.meter is not None and now - record.opened_at > _LABELS_WAIT_S:
                self.established(record)
            if record.traffic is not None:
                self._count_octets(record)

    def live(self) -> dict[str, list[LiveConnection]]:
        """Open connections per pod uid, as the config dump shows them."""
        found: dict[str, list[LiveConnection]] = {}
        for record in self._open:
            inbound = record.inbound
            found.setdefault(record.pod_uid, []).append(
                LiveConnection(
                    direction="inbound" if inbound else "outbound",
                    src=record.source_text,
                    original_dst=record.asked_host if inbound else str(record.original),
                    actual_dst=str(record.original if inbound else record.destination),
                    protocol=record.protocol,
                    peer=record.source_identity if inbound else record.destination_identity,
                    opened_unix=record.opened_unix,
                )
            )
        return found

    def take_flows(self) -> list[Flows]:
        """The flow records since the last call."""
        if self._flows or self._flows_lost:
            self._pack()
        packed, self._packed, self._flows_kept = self._packed, [], 0
        return packed

    def _pack(self) -> None:
        packed = pack(self.node, [ends.flow for ends in self._flow_ends], self._flows)
        self._packed.append(Flows(packed=packed, count=len(self._flows), lost=self._flows_lost))
        self._flows, self._flow_ends, self._flows_lost = [], {}, 0

    def take_moved(self, local: Container[IpAddress]) -> set[str]:
        """The pods that began a connection which carried octets since the last call; a connection from elsewhere counts
        for the pod it came to, one between two pods of the node (`local`: their addresses) for the client's."""
        moved, self._moved = self._moved, {}
        return {uid for (uid, inbound, ip) in moved if not inbound or ip not in local}

    def _count_octets(self, record: ConnectionRecord) -> bool:
        """Whether there were any; then the series is marked as changed."""
        received, sent = record.octets()
        totals = record.totals
        if totals is None or (received == record.counted_received and sent == record.counted_sent):
            return False
        self._moved[record.pod_uid, record.inbound, record.source.ip if record.inbound else None] = None
        self.counters.touch(totals)
        totals.received += received - record.counted_received
        totals.sent += sent - record.counted_sent
        record.counted_received, record.counted_sent = received, sent
        return True

    def _fields(self, record: ConnectionRecord, ends: Ends) -> list[Item]:
        fields: list[Item] = [("src.addr", Bare(record.source_text)), ends.source_fields]
        fields.append(("dst.addr", Bare(shown(record.destination))))
        if record.hbone_target:
            fields.append(("dst.hbone_addr", bare(record.hbone_target)))
        fields.append(ends.destination_fields)
        return fields

    def _flow(self, event: str, record: ConnectionRecord, failure: Failure | None, ends: Ends) -> None:
        if self._flows_kept >= _FLOW_LIMIT:
            self._flows_lost += 1
            return
        self._flows_kept += 1
        received, sent = record.octets()
        number = self._flow_ends.get(ends)
        if number is None:
            number = self._flow_ends[ends] = len(self._flow_ends)
        moment, lasted = self._wall(), int((self._clock() - record.opened_at) * 1000)
        source, destination = record.source_text, record.hbone_target or shown(record.destination)
        trace = record.traceparent
        if failure is None:
            flow = FlowEvent(number, event, moment, source, destination, received, sent, lasted, trace)
        else:
            flag, reason, detail = failure.flag.value, failure.reason, failure.detail or failure.text
            flow = FlowEvent(
                *(number, event, moment, source, destination, received, sent, lasted, trace),
                *(flag, reason, failure.policy, detail),
            )
        self._flows.append(flow)
        if len(self._flows) >= _PACKED_AT_ONCE:
            self._pack()
