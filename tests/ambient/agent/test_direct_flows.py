"""Connections on the kernel path: told once, counted to the byte, cut when they may not be any more."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from ambient.agent.direct_flows import DOUBT_S, IDLE_S, LINGER_S, UNANSWERED_S, DirectFlows
from ambient.agent.direct_shares import DirectShares
from ambient.agent.direct_telling import Telling
from ambient.agent.same_node import Judged, Right
from ambient.datapath.direct import MOST_CONNECTIONS
from ambient.datapath.layout import WayFlag
from ambient.flows.record import Event, Flow
from ambient.model.outcome import PeerLabels
from tests.support.direct import CLIENT, ONE, FakeDirect, FakeSockets

YES = Judged(Right.YES, source=PeerLabels(pod="client", principal="spiffe://c"), destination=PeerLabels(pod="server"))
NO = Judged(Right.NO, "denied-by", "shop/no")


@dataclass
class Scene:
    tables: FakeDirect = field(default_factory=FakeDirect)
    sockets: FakeSockets = field(default_factory=FakeSockets)
    judged: Judged = YES
    current: bool = True
    now: float = 100.0
    flows_: list[Flow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.telling = Telling("n1", self.flows_.extend, wall=lambda: 1000.0)
        self.flows = DirectFlows(
            self.tables,
            lambda _: self.judged,
            lambda: self.current,
            self.sockets,
            self.telling,
            DirectShares(self.tables, lambda: {CLIENT}),
            lambda: self.now,
        )

    def look(self, after: float = 0.0) -> None:
        self.now += after
        self.flows.look()

    def metric(self, family: str) -> int:
        start, lines = f'istio_tcp_{family}_total{{reporter="source"', self.telling.render().splitlines()
        found = [line for line in lines if line.startswith(start)]
        return sum(int(line.rpartition(" ")[2]) for line in found)


def test_a_connection_is_told_from_both_sides_when_it_is_over() -> None:
    scene = Scene()
    scene.tables.pass_by(at=100.0, there=10, back=20)
    scene.look()
    assert (scene.metric("connections_opened"), scene.metric("connections_closed")) == (1, 0)
    assert (scene.metric("received_bytes"), scene.metric("sent_bytes")) == (10, 20)
    scene.tables.pass_by(at=101.5, there=15, back=27, flags=WayFlag.ENDED)
    scene.look(1.6)
    assert ONE in scene.tables.found
    scene.look(LINGER_S + 0.1)
    assert not scene.tables.found
    assert scene.sockets.forgotten == [ONE]
    assert [(f.event, f.direction, f.bytes_sent, f.bytes_received) for f in scene.flows_] == [
        (Event.CLOSED, "outbound", 15, 27),
        (Event.CLOSED, "inbound", 15, 27),
    ]
    assert {(f.security, f.source_principal, f.duration_ms) for f in scene.flows_} == {("kernel", "spiffe://c", 1500)}
    assert (scene.metric("connections_closed"), scene.metric("received_bytes")) == (1, 15)
    assert scene.flows.open == 0


def test_a_client_is_told_how_far_it_may_go_after_what_it_has() -> None:
    scene = Scene()
    scene.look()
    scene.tables.began[CLIENT] = 7
    scene.tables.pass_by(at=100.0)
    scene.look()
    assert scene.tables.room == {CLIENT: 7 + (MOST_CONNECTIONS - 1) // 2}


def test_a_connection_that_came_and_went_between_two_looks_is_told() -> None:
    scene = Scene()
    scene.tables.pass_by(at=98.0, there=1, back=2, flags=WayFlag.ENDED)
    scene.look()
    assert (scene.metric("connections_opened"), scene.metric("connections_closed")) == (1, 1)


@pytest.mark.parametrize(
    ("flags", "idle", "reason"),
    [
        (WayFlag.OPENING | WayFlag.RESET, LINGER_S, "refused"),
        (WayFlag.OPENING, UNANSWERED_S, "timeout"),
    ],
)
def test_what_never_opened_failed(flags: WayFlag, idle: float, reason: str) -> None:
    scene = Scene()
    scene.tables.pass_by(at=100.0, flags=flags)
    scene.look()
    assert not scene.flows_
    scene.look(idle + 0.1)
    assert {(f.event, f.reason, f.flags) for f in scene.flows_} == {(Event.FAILED, reason, "CONNECT")}
    assert (scene.metric("connections_opened"), scene.metric("connections_failed")) == (0, 1)


def test_what_policy_refuses_now_is_cut_and_stays_cut_until_its_sockets_are_gone() -> None:
    scene = Scene()
    scene.tables.pass_by(at=100.0, there=10)
    scene.look()
    scene.judged, scene.sockets.there = NO, {ONE}
    scene.look(0.1)
    assert scene.tables.found[ONE].flags & scene.tables.found[ONE.reverse].flags & WayFlag.CUT
    for _ in range(3):
        scene.look(10)
        assert ONE in scene.tables.found
    scene.sockets.there.clear()
    scene.look(0.1)
    assert not scene.tables.found
    assert {(f.event, f.policy, f.reason, f.flags) for f in scene.flows_} == {
        (Event.DENIED, "shop/no", "denied-by", "DENY")
    }


def test_doubt_is_borne_for_seconds_while_discovery_is_connected_and_for_ever_while_not() -> None:
    scene = Scene()
    scene.tables.pass_by(at=100.0)
    scene.look()
    scene.judged, scene.current = Judged(Right.DOUBT), False
    scene.look(10 * DOUBT_S)
    scene.current = True
    scene.look(1)
    scene.look(DOUBT_S - 1)
    assert not scene.tables.found[ONE].flags & WayFlag.CUT
    scene.look(1.1)
    assert scene.tables.found[ONE].flags & WayFlag.CUT


def test_an_idle_connection_goes_only_when_its_sockets_have_gone() -> None:
    scene = Scene(sockets=FakeSockets({ONE}))
    scene.tables.pass_by(at=100.0)
    scene.look(IDLE_S + 1)
    assert ONE in scene.tables.found
    scene.sockets.there.clear()
    scene.look(IDLE_S + 1)
    assert not scene.tables.found


def test_half_a_way_that_nobody_needs_is_taken_out() -> None:
    scene = Scene()
    scene.tables.pass_by(at=100.0)
    del scene.tables.found[ONE]
    scene.look(LINGER_S + 0.1)
    assert not scene.tables.found
    assert not scene.flows_


def test_ends_wait_when_there_are_too_many_and_none_is_lost() -> None:
    scene = Scene()
    ticks = iter(range(10_000))
    scene.flows = DirectFlows(
        scene.tables,
        lambda _: YES,
        lambda: True,
        scene.sockets,
        scene.telling,
        DirectShares(scene.tables, lambda: {CLIENT}),
        lambda: 200.0 + next(ticks) * 0.02,
    )
    for port in range(10):
        one = ONE._replace(source=ONE.source.__class__(ONE.source.ip, 50_000 + port))
        scene.tables.pass_by(one, at=100.0, flags=WayFlag.ENDED)
    scene.look()
    assert 0 < len(scene.tables.found) < 20
    for _ in range(20):
        scene.look()
    assert not scene.tables.found
    assert len(scene.flows_) == 20
