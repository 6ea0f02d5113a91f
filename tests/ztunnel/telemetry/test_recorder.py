"""One record per connection, closed once; what is counted where, and which way bytes run."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from ambient.model.address import Endpoint, parse_endpoint
from ambient.model.outcome import PeerLabels
from ambient.model.traffic import FLAGS
from ztunnel.ipc.flows import unpack
from ztunnel.telemetry.access_log import LogWriter
from ztunnel.telemetry.record import ConnectionRecord, Failure, Flag
from ztunnel.telemetry.recorder import Recorder

A, B = parse_endpoint("10.0.0.1:1000"), parse_endpoint("10.0.0.2:80")


@dataclass
class Meter:
    taken: int = 0
    given: int = 0


class Lines:
    """What a writer of JSON lines wrote: level, message and the other fields of each."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("lines")
        self.writer = LogWriter(self._fd, soon=lambda flush: flush(), later=lambda *_: None, clock=lambda: 0.0)
        self.writer.configure("json", "info")

    def __del__(self) -> None:
        os.close(self._fd)

    @property
    def lines(self) -> list[tuple[str, str, dict[str, str | int]]]:
        written = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        found = [json.loads(line) for line in written.splitlines()]
        rest = ({key: one[key] for key in one if key not in ("level", "time", "scope", "message")} for one in found)
        return [(one["level"], one["message"], fields) for one, fields in zip(found, rest, strict=True)]


def recorder() -> tuple[Recorder, Lines]:
    lines = Lines()
    return Recorder(lines.writer, clock=lambda: 5.0, wall=lambda: 100.0), lines


def totals(made: Recorder) -> dict[str, tuple[int, int, int, int, int]]:
    report = made.counters.report(dict)
    assert report is not None
    return {s.labels[FLAGS]: (s.opened, s.closed, s.failed, s.received, s.sent) for s in report.series}


def relayed(made: Recorder, *, inbound: bool) -> ConnectionRecord:
    record = made.open("uid", A, B, inbound=inbound)
    # The application is the client going out and the server coming in: 7 octets up, 3 down in both cases.
    record.meter = Meter(3, 7) if inbound else Meter(7, 3)
    made.established(record)
    return record


def test_metrics_count_from_client_to_server_and_the_log_from_the_local_workload() -> None:
    for inbound in (False, True):
        made, lines = recorder()
        made.close(relayed(made, inbound=inbound))
        assert totals(made) == {"-": (1, 1, 0, 7, 3)}
        fields = lines.lines[-1][2]
        assert (fields["bytes_sent"], fields["bytes_recv"]) == ((3, 7) if inbound else (7, 3))
        assert fields["direction"] == ("inbound" if inbound else "outbound")


def test_a_record_closes_once() -> None:
    made, lines = recorder()
    record = relayed(made, inbound=False)
    made.close(record)
    made.close(record, Failure(Flag.DENY, "again"))
    assert totals(made) == {"-": (1, 1, 0, 7, 3)}
    assert len([1 for line in lines.lines if line[1] == "connection complete"]) == 1
    assert made.open_count == 0


def test_a_denied_connection_opens_clean_and_closes_and_fails_under_its_flag() -> None:
    made, lines = recorder()
    record = made.open("uid", A, B, inbound=True)
    made.close(record, Failure(Flag.DENY, "no", "denied-by", "ns/p", "detail"))
    assert totals(made) == {"-": (1, 0, 0, 0, 0), "DENY": (0, 1, 1, 0, 0)}
    level, _, fields = lines.lines[-1]
    assert level == "error"
    assert (fields["error"], fields["policy"], fields["reason"]) == ("no", "ns/p", "denied-by")
    (flows,) = made.take_flows()
    assert [(flow.event, flow.policy, flow.flags) for flow in unpack(flows.packed)] == [
        ("opened", "", "-"),
        ("denied", "ns/p", "DENY"),
    ]


def test_live_connections_are_counted_as_they_go_and_never_twice() -> None:
    made, _ = recorder()
    record = relayed(made, inbound=False)
    made.count_live()
    assert totals(made) == {"-": (1, 0, 0, 7, 3)}
    assert isinstance(record.meter, Meter)
    record.meter.taken = 10
    made.count_live()
    assert totals(made) == {"-": (1, 0, 0, 10, 3)}
    made.close(record)
    assert totals(made) == {"-": (1, 1, 0, 10, 3)}


def test_principals_count_only_with_mutual_tls() -> None:
    made, lines = recorder()
    record = made.open("uid", A, B, inbound=True)
    record.source_identity = "spiffe://x/ns/y/sa/z"
    record.source_peer = PeerLabels(pod="p-1")
    made.close(record)
    assert "src.identity" not in lines.lines[-1][2]
    assert lines.lines[-1][2]["src.workload"] == "p-1"


def test_flows_beyond_the_limit_are_counted_as_lost() -> None:
    made, _ = recorder()
    for _ in range(10_005):
        made.close(made.open("uid", A, B, inbound=False))
    flows = made.take_flows()
    assert (sum(one.count for one in flows), sum(one.lost for one in flows)) == (20_000, 10)
    assert made.take_flows() == []
    made.close(made.open("uid", A, B, inbound=False))
    assert [(one.count, one.lost) for one in made.take_flows()] == [(2, 0)]


def test_flows_are_packed_a_few_at_a_time_and_keep_their_order() -> None:
    made, _ = recorder()
    for number in range(300):
        made.close(made.open(f"uid-{number}", Endpoint(A.ip, 1 + number), B, inbound=False))
    flows = made.take_flows()
    assert [one.count for one in flows] == [256, 256, 88]
    sources = [flow.source for one in flows for flow in unpack(one.packed)]
    assert sources == [f"{A.ip}:{1 + number}" for number in range(300) for _ in range(2)]


def test_the_dump_shows_open_connections_by_pod() -> None:
    made, _ = recorder()
    record = relayed(made, inbound=False)
    record.hbone_target = "10.0.0.2:80"
    record.destination = parse_endpoint("10.0.0.2:15008")
    (live,) = made.live()["uid"]
    assert (live.direction, live.src, live.protocol) == ("outbound", "10.0.0.1:1000", "HBONE")
    assert (live.original_dst, live.actual_dst, live.opened_unix) == ("10.0.0.2:80", "10.0.0.2:15008", 100.0)
    record.doubled = True
    assert made.live()["uid"][0].protocol == "DOUBLEHBONE"


def test_coming_in_the_dump_shows_the_service_the_client_dialled_and_where_it_led() -> None:
    made, _ = recorder()
    record = relayed(made, inbound=True)
    assert [(one.original_dst, one.protocol) for one in made.live()["uid"]] == [("", "TCP")]
    record.hbone_target = "db.shop.svc.cluster.local:80"
    record.original = parse_endpoint("10.0.0.2:8080")
    for hint, host in (
        (b'for="10.0.0.1:1000";host=db.shop.svc.cluster.local', "db.shop.svc.cluster.local"),
        (b'host="db.shop";for="10.0.0.1:1"', "db.shop"),
        (b'for="10.0.0.1:1000"', ""),
        (b"host=\xff", ""),
    ):
        record.hint = hint
        (live,) = made.live()["uid"]
        assert (live.original_dst, live.actual_dst, live.protocol) == (host, "10.0.0.2:8080", "HBONE")


def test_an_opening_is_a_line_only_at_debug() -> None:
    for level, told in (("info", 0), ("access=debug", 1), ("debug,access=info", 0)):
        made, lines = recorder()
        lines.writer.set_level(level)
        relayed(made, inbound=False)
        assert [line[:2] for line in lines.lines] == [("debug", "connection opened")] * told


def test_a_failure_without_a_context_is_a_warning() -> None:
    made, lines = recorder()
    made.refused(A, "10.0.0.2:15008", "inbound", "handshake")
    assert lines.lines == [
        (
            "warn",
            "connection failed",
            {"src.addr": "10.0.0.1:1000", "dst.addr": "10.0.0.2:15008", "direction": "inbound", "error": "handshake"},
        )
    ]
