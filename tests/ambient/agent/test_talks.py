"""A talk without an end is told as closed once it is quiet, with all it came to."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from ambient.agent.talks import QUIET_S, Talks
from ambient.flows.record import Event
from tests.support.told_flows import CLIENT, SERVER, WORKLOADS, line

UDP = socket.IPPROTO_UDP


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_several_sheets_say_of_it_is_told_at_its_end() -> None:
    clock = Clock()
    talks = Talks("n1", WORKLOADS.get, clock)
    assert talks.take([line(protocol=UDP, port=53)]) == []
    clock.now += QUIET_S - 1
    assert talks.take([line(protocol=UDP, port=53)]) == []
    clock.now += QUIET_S
    (flow,) = talks.take([])
    assert (flow.event, flow.protocol, flow.source, flow.destination) == (
        Event.CLOSED,
        "udp",
        "10.0.0.5:0",
        "10.0.0.6:53",
    )
    assert (flow.bytes_sent, flow.packets_sent, flow.packets_received) == (20, 4, 2)
    assert (flow.time_unix, flow.duration_ms) == (1000.0 + QUIET_S - 1, int((QUIET_S - 1) * 1000))
    assert flow.source_principal == "spiffe://cluster.local/ns/shop/sa/web"
    assert talks.take([]) == []


def test_what_was_added_up_beyond_a_share_is_told_as_such() -> None:
    clock = Clock()
    talks = Talks("n1", WORKLOADS.get, clock)
    talks.take([line(destination=ip_address("::"), protocol=UDP, port=0)])
    clock.now += QUIET_S
    (flow,) = talks.take([])
    assert (flow.source, flow.destination) == ("10.0.0.5:0", "[::]:0")
    assert flow.detail == "all that was beyond this pod's share"


def test_tcp_tells_its_end_itself() -> None:
    clock = Clock()
    talks = Talks("n1", WORKLOADS.get, clock)
    talks.take([line()])
    clock.now += QUIET_S
    assert talks.take([]) == []


def test_no_pod_has_more_watched_than_are_left_for_the_others_and_what_is_not_told_is_counted() -> None:
    clock = Clock()
    talks = Talks("n1", WORKLOADS.get, clock, most=6)
    talks.take([line(protocol=UDP, port=port) for port in range(9)])
    other = line(SERVER, CLIENT, protocol=UDP)
    talks.take([other])
    clock.now += QUIET_S
    assert [flow.source for flow in talks.take([])] == ["10.0.0.5:0"] * 3 + ["10.0.0.6:0"]
    assert talks.untold == 9 - 3
    talks.take([line(protocol=UDP, port=port) for port in range(9)])
    clock.now += QUIET_S
    assert len(talks.take([])) == 3
