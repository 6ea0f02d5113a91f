"""Flow records in JSON: what is written is what is read, and odd input is refused by field."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.flows.record import Event, Flow, from_json, from_mapping, to_json

SMALL = Flow(
    event=Event.OPENED,
    time_unix=1.5,
    node="n1",
    direction="outbound",
    source="10.0.0.1:4000",
    destination="[fd00::1]:80",
)
FULL = Flow(
    event=Event.CLOSED,
    time_unix=1700000000.25,
    node="n1",
    direction="inbound",
    source="10.0.0.1:4000",
    destination="10.0.0.2:80",
    source_pod="a",
    source_namespace="shop",
    source_principal="spiffe://cluster.local/ns/shop/sa/a",
    destination_pod="b",
    destination_namespace="store",
    destination_principal="spiffe://cluster.local/ns/store/sa/b",
    service="b.store.svc.cluster.local",
    security="mutual_tls",
    flags="DENY",
    reason="denied-by",
    policy="store/no",
    detail='quote " and newline \n',
    bytes_sent=1 << 40,
    bytes_received=7,
    duration_ms=12,
    sequence=9,
)


@pytest.mark.parametrize("flow", [SMALL, FULL])
def test_what_is_written_is_what_is_read(flow: Flow) -> None:
    line = to_json(flow)
    assert "\n" not in line
    assert from_json(line, "line 1") == flow


def test_what_is_at_its_default_is_left_out() -> None:
    assert set(json.loads(to_json(SMALL))) == {"event", "time_unix", "node", "direction", "source", "destination"}


def test_a_newer_writer_is_understood() -> None:
    assert from_mapping({**asdict(SMALL), "invented_later": 1}, "here") == SMALL


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"event": "exploded"}, "event 'exploded'"),
        ({"event": 1}, "event is 1"),
        ({"time_unix": "now"}, "time_unix"),
        ({"bytes_sent": 1.5}, "bytes_sent"),
        ({"bytes_sent": True}, "bytes_sent"),
        ({"node": None}, "node"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        from_mapping({**asdict(SMALL), **change}, "here")


@pytest.mark.parametrize("name", ["event", "time_unix", "node", "direction", "source", "destination"])
def test_a_missing_field_is_named(name: str) -> None:
    raw = asdict(SMALL)
    del raw[name]
    with pytest.raises(InvalidInput, match=f"{name} is missing"):
        from_mapping(raw, "here")


@pytest.mark.parametrize("line", ["", "{", "[]", "1"])
def test_a_line_that_is_no_object_is_refused(line: str) -> None:
    with pytest.raises(InvalidInput, match="line 7"):
        from_json(line, "line 7")
