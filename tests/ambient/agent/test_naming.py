"""Flows of the kernel become records; an identity is told of the pod of this node only."""

from __future__ import annotations

import json

import pytest

from ambient.agent.naming import protocol_name, record_of
from ambient.datapath.layout import End, Path
from ambient.flows.record import Event, to_json
from tests.support.told_flows import WORKLOADS, flow


def test_a_flow_is_told_with_what_its_socket_knew() -> None:
    record = record_of(flow(), "n1", 1000.0, WORKLOADS.get)
    assert json.loads(to_json(record)) == {
        "event": "closed",
        "time_unix": 1005.0,
        "node": "n1",
        "direction": "outbound",
        "source": "10.0.0.5:4000",
        "destination": "10.0.0.6:80",
        "source_pod": "web-1",
        "source_namespace": "shop",
        "source_principal": "spiffe://cluster.local/ns/shop/sa/web",
        "destination_pod": "db-1",
        "destination_namespace": "data",
        "detail": "not by ztunnel",
        "bytes_sent": 10,
        "bytes_received": 20,
        "duration_ms": 2000,
        "packets_sent": 3,
        "packets_received": 4,
        "retransmits": 1,
        "rtt_us": 250,
        "protocol": "tcp",
    }


def test_the_identity_is_that_of_the_pod_whose_interface_it_was() -> None:
    record = record_of(flow(arriving=True), "n1", 0.0, WORKLOADS.get)
    assert (record.direction, record.source_principal) == ("inbound", "")
    assert record.destination_principal == "spiffe://cluster.local/ns/data/sa/db"


@pytest.mark.parametrize(
    ("end", "event", "reason"),
    [
        (End.NONE, Event.OPENED, ""),
        (End.ORDERLY, Event.CLOSED, ""),
        (End.RESET, Event.FAILED, "reset"),
        (End.REFUSED, Event.FAILED, "refused"),
        (End.UNANSWERED, Event.FAILED, "unanswered"),
    ],
)
def test_how_it_ended_is_an_event_and_a_reason(end: End, event: Event, reason: str) -> None:
    record = record_of(flow(end), "n1", 0.0, WORKLOADS.get)
    assert (record.event, record.reason) == (event, reason)


def test_only_tunnels_are_said_to_be_secure() -> None:
    told = {path: record_of(flow(path=path), "n1", 0.0, WORKLOADS.get).security for path in Path}
    assert told == {path: "mutual_tls" if path is Path.TUNNEL else "unknown" for path in Path}


def test_a_protocol_without_a_name_is_told_by_its_number() -> None:
    assert [protocol_name(number) for number in (6, 17, 1, 58, 132)] == ["tcp", "udp", "icmp", "icmp", "132"]
