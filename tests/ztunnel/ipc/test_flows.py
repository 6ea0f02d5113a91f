"""Packed flow records."""

from __future__ import annotations

import msgspec
import pytest

from ambient.errors import InvalidInput
from tests.support.flow_records import packed
from ztunnel.ipc.flows import FlowEnds, FlowEvent, FlowRecord, pack, unpack

ENDS = FlowEnds("outbound", "client-1", "web", "spiffe://t/ns/web/sa/c", "", "", "", "shop.web", "mutual_tls")


def test_what_is_packed_comes_out_again() -> None:
    records = [
        FlowRecord(event="opened", time_unix=1.5, node="n", direction="inbound", source="a:1", destination="b:2"),
        FlowRecord(
            event="failed", time_unix=2, node="n", direction="outbound", source="a:1", destination="b:2", reason="why"
        ),
    ]
    assert unpack(packed(records)) == records
    assert unpack(packed([])) == []


def test_every_field_of_a_record_comes_from_its_two_parts_each_once() -> None:
    own, common = set(FlowEvent.__struct_fields__) - {"ends"}, set(FlowEnds.__struct_fields__)
    assert not own & common
    assert own | common | {"node"} == set(FlowRecord.__struct_fields__)
    values = {name: f"v-{name}" for name in FlowRecord.__struct_fields__}
    numbers = {"time_unix": 1.5, "bytes_sent": 1, "bytes_received": 2, "duration_ms": 3}
    record = msgspec.convert(values | numbers, FlowRecord)
    assert unpack(packed([record])) == [record]


def test_what_connections_have_in_common_is_written_once() -> None:
    def octets(connections: int) -> int:
        events = [FlowEvent(0, "closed", 1.5, "10.0.0.1:40000", "10.0.0.2:80", 1, 2, 3, "") for _ in range(connections)]
        return len(pack("n1", [ENDS], events))

    assert octets(2) - octets(1) < 70
    assert octets(1) > octets(2) - octets(1) + 60


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xc0",
        b"\x91\x91\xa1x",
        b"\x91\xc0",
        b"\xff",
        pack("n", [], [FlowEvent(0, "closed", 1.5, "a:1", "b:2", 1, 2, 3, "")]),
        pack("n", [ENDS], [FlowEvent(-1, "closed", 1.5, "a:1", "b:2", 1, 2, 3, "")]),
    ],
)
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(InvalidInput):
        unpack(junk)
