"""Both ends of ZDS against each other and against peers that break the rules."""

from __future__ import annotations

import pytest

from ambient.errors import ProtocolError
from ambient.zds.codec import (
    Ack,
    AddWorkload,
    DelWorkload,
    KeepWorkload,
    Request,
    SnapshotSent,
    descriptors_of,
    encode_ack,
    encode_request,
)
from ambient.zds.session import AgentSession, NotServed, Removed, Served, SnapshotDone, Start, Stop, ZtunnelSession

A, B = AddWorkload("a", "pod-a", "x", "sa"), AddWorkload("b", "pod-b", "x", "sa")


def deliver(ztunnel: ZtunnelSession, request: Request, error: str = "") -> tuple[Start | Stop, bytes]:
    effect = ztunnel.receive(encode_request(request), descriptors_of(request))
    return effect, ztunnel.finish(error)


def run(agent: AgentSession, ztunnel: ZtunnelSession, now: float = 0.0) -> tuple[list[object], list[object]]:
    """Exchange until the agent has nothing to send; gives the agent's events and ztunnel's effects."""
    events: list[object] = []
    effects: list[object] = []
    while (request := agent.next_request(now)) is not None:
        effect, ack = deliver(ztunnel, request)
        effects.append(effect)
        events.append(agent.receive(ack, now))
    return events, effects


def greeted(*pods: AddWorkload | KeepWorkload) -> AgentSession:
    agent = AgentSession(pods)
    agent.receive(ZtunnelSession().hello(), 0.0)
    return agent


def test_nothing_is_sent_before_the_hello() -> None:
    agent = AgentSession([A])
    assert agent.next_request(0.0) is None
    agent.receive(ZtunnelSession().hello(), 0.0)
    assert agent.next_request(0.0) == A


def test_the_snapshot_names_every_pod_and_ends() -> None:
    ztunnel = ZtunnelSession()
    events, effects = run(greeted(A, KeepWorkload("k"), B), ztunnel)
    assert events == [Served("a"), None, Served("b"), SnapshotDone()]
    assert effects == [Start(A), Stop(), Start(B), Stop()]
    assert ztunnel.ready


def test_the_next_request_waits_for_the_ack_of_the_last() -> None:
    agent = greeted(A, B)
    assert agent.next_request(0.0) == A
    assert agent.awaits_ack
    assert agent.next_request(0.0) is None
    agent.receive(encode_ack(Ack()), 0.0)
    assert agent.next_request(0.0) == B


def test_a_reconnected_ztunnel_drops_what_the_snapshot_did_not_name_and_keeps_the_rest() -> None:
    ztunnel = ZtunnelSession(served=["a", "gone", "k"])
    _, effects = run(greeted(A, KeepWorkload("k")), ztunnel)
    assert effects == [Start(A), Stop(), Stop(("gone",))]


def test_pods_come_and_go_after_the_snapshot() -> None:
    agent, ztunnel = greeted(), ZtunnelSession()
    run(agent, ztunnel)
    agent.add(A)
    assert run(agent, ztunnel) == ([Served("a")], [Start(A)])
    agent.delete("a")
    assert run(agent, ztunnel) == ([Removed("a")], [Stop(("a",))])


def test_a_pod_deleted_before_it_was_sent_is_not_added() -> None:
    agent, ztunnel = greeted(A, B), ZtunnelSession()
    agent.delete("a")
    _, effects = run(agent, ztunnel)
    assert Start(A) not in effects


def test_a_deletion_within_the_snapshot_is_carried_out_at_its_end() -> None:
    ztunnel = ZtunnelSession(served=["a"])
    deliver(ztunnel, A)
    assert deliver(ztunnel, DelWorkload("a"))[0] == Stop()
    assert deliver(ztunnel, SnapshotSent())[0] == Stop(("a",))


def test_a_pod_that_was_not_served_is_tried_again_with_growing_pauses() -> None:
    agent, ztunnel = greeted(A), ZtunnelSession()
    now, pauses = 0.0, []
    for _ in range(14):
        request = agent.next_request(now)
        assert request == A
        assert agent.receive(deliver(ztunnel, request, "no port")[1], now) == NotServed("a", "no port")
        snapshot = agent.next_request(now)
        if snapshot is not None:
            agent.receive(deliver(ztunnel, snapshot)[1], now)
        wake = agent.wake_at()
        assert wake is not None
        assert agent.next_request(now) is None
        pauses.append(wake - now)
        now = wake
    assert pauses[:3] == pytest.approx([0.005, 0.01, 0.02])
    assert pauses[-1] == pytest.approx(5.0)
    assert not ztunnel.ready
    assert ztunnel.pending == {"a": "no port"}
    assert run(agent, ztunnel, now)[0] == [Served("a")]
    assert ztunnel.ready
    assert agent.wake_at() is None


def test_a_pod_deleted_while_it_waits_for_a_retry_is_not_tried_again() -> None:
    agent, ztunnel = greeted(A), ZtunnelSession()
    request = agent.next_request(0.0)
    assert request is not None
    agent.receive(deliver(ztunnel, request, "no")[1], 0.0)
    agent.delete("a")
    events, _ = run(agent, ztunnel, now=100.0)
    assert events == [SnapshotDone(), Removed("a")]
    assert ztunnel.ready


def test_a_pending_pod_that_recovers_by_itself_makes_ztunnel_ready() -> None:
    ztunnel = ZtunnelSession()
    deliver(ztunnel, A, "no netns yet")
    deliver(ztunnel, SnapshotSent())
    assert not ztunnel.ready
    ztunnel.recovered("a")
    assert ztunnel.ready


def test_the_snapshot_is_needed_for_readiness() -> None:
    ztunnel = ZtunnelSession()
    deliver(ztunnel, A)
    assert not ztunnel.ready


@pytest.mark.parametrize("request_", [SnapshotSent(), KeepWorkload("a")])
def test_keep_and_snapshot_after_the_snapshot_break_the_protocol(request_: Request) -> None:
    ztunnel = ZtunnelSession()
    deliver(ztunnel, SnapshotSent())
    with pytest.raises(ProtocolError, match="before the end of the snapshot"):
        ztunnel.receive(encode_request(request_), 0)


@pytest.mark.parametrize(("request_", "descriptors"), [(A, 0), (A, 2), (DelWorkload("a"), 1), (SnapshotSent(), 1)])
def test_a_wrong_number_of_descriptors_breaks_the_protocol(request_: Request, descriptors: int) -> None:
    with pytest.raises(ProtocolError, match="descriptors instead of"):
        ZtunnelSession().receive(encode_request(request_), descriptors)


def test_a_request_before_the_answer_to_the_last_breaks_the_protocol() -> None:
    ztunnel = ZtunnelSession()
    ztunnel.receive(encode_request(A), 1)
    with pytest.raises(ProtocolError, match="before the last one"):
        ztunnel.receive(encode_request(B), 1)


def test_an_ack_that_nobody_asked_for_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError, match="nothing was asked"):
        greeted().receive(encode_ack(Ack()), 0.0)


def test_a_refused_snapshot_ends_the_session() -> None:
    agent = greeted()
    agent.next_request(0.0)
    with pytest.raises(ProtocolError, match="refused by ztunnel: full"):
        agent.receive(encode_ack(Ack("full")), 0.0)


def test_an_answer_to_nothing_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError, match="nothing was asked"):
        ZtunnelSession().finish()
