"""Judging: the policy in force, the waypoint rule, and cutting that reaches everybody."""

from __future__ import annotations

from dataclasses import replace

from ambient.model.address import parse_ip
from ambient.model.decide import SharedIndexes
from ambient.model.explain import Explanation
from ambient.model.identity import Identity, parse_identity
from ambient.model.outcome import Allowed, Connection, Denied, DryRun, Effect, Reason, Verdict
from ambient.model.policy import Action, Authorization, Match, PolicyScope, StringMatch, StringMatchKind
from ztunnel.ipc.messages import PodPolicy
from ztunnel.proxy.connections import LiveConnections, denial
from ztunnel.telemetry.record import Failure

WAYPOINT = "spiffe://cluster.local/ns/a/sa/waypoint"
DENY_80 = Authorization(
    name="p",
    namespace="a",
    scope=PolicyScope.NAMESPACE,
    action=Action.DENY,
    rules=(((Match(destination_ports=(80,)),),),),
)


class Live:
    def __init__(self, port: int = 80, peer: Identity | None = None) -> None:
        self.connection = Connection(parse_ip("10.0.0.1"), parse_ip("10.0.0.2"), port, peer)
        self.cuts: list[Failure] = []

    def cut(self, failure: Failure) -> None:
        self.cuts.append(failure)


class Broken(Live):
    def cut(self, failure: Failure) -> None:
        raise RuntimeError("bug")


def never(where: str, error: BaseException) -> None:
    raise AssertionError((where, error))


def test_a_replaced_policy_cuts_exactly_those_that_fail_it() -> None:
    connections = LiveConnections(PodPolicy(known=True), never, SharedIndexes())
    cut, stays = Live(80), Live(81)
    for live in (cut, stays):
        connections.register(live)
        assert isinstance(connections.judge(live), Allowed)
    assert connections.replace(PodPolicy(known=True, policies=(DENY_80,))) == 1
    assert [failure.policy for failure in cut.cuts] == ["a/p"]
    assert cut.cuts[0].text == "connection closed due to policy change"
    assert not stays.cuts


def test_a_released_connection_is_judged_no_more() -> None:
    connections = LiveConnections(PodPolicy(known=True), never, SharedIndexes())
    live = Live()
    connections.register(live)
    connections.release(live)
    assert connections.replace(PodPolicy(known=True, policies=(DENY_80,))) == 0


def test_one_that_cannot_be_cut_does_not_save_the_others() -> None:
    crashes: list[str] = []
    connections = LiveConnections(PodPolicy(known=True), lambda where, _: crashes.append(where), SharedIndexes())
    first, second = Broken(), Live()
    connections.register(first)
    connections.register(second)
    connections.replace(PodPolicy(known=True, missing=("a/gone",)))
    assert crashes == ["cut"]
    assert len(second.cuts) == 1


def test_behind_a_waypoint_only_the_waypoint_comes_in_plain_text_neither() -> None:
    connections = LiveConnections(PodPolicy(known=True, waypoint_principals=(WAYPOINT,)), never, SharedIndexes())
    waypoint, other = parse_identity(WAYPOINT), parse_identity(WAYPOINT + "2")
    assert isinstance(connections.judge(Live(peer=waypoint)), Allowed)
    for live in (Live(peer=other), Live(peer=None)):
        verdict = connections.judge(live)
        assert isinstance(verdict, Denied)
        assert verdict.reason is Reason.NOT_ITS_WAYPOINT


def test_a_port_that_a_service_without_waypoint_offers_is_reached_directly() -> None:
    policy = PodPolicy(known=True, waypoint_principals=(WAYPOINT,), open_ports=(Live().connection.destination_port,))
    connections = LiveConnections(policy, never, SharedIndexes())
    for peer in (parse_identity(WAYPOINT), parse_identity(WAYPOINT + "2"), None):
        assert isinstance(connections.judge(Live(peer=peer)), Allowed)
    elsewhere = LiveConnections(replace(policy, open_ports=(1,)), never, SharedIndexes())
    assert isinstance(elsewhere.judge(Live(peer=None)), Denied)


def test_denials_speak_istios_words() -> None:
    words = {
        Reason.DENIED_BY: "connection closed due to policy rejection: explicitly denied by: a/p",
        Reason.NO_ALLOW_MATCHED: "connection closed due to policy rejection: allow policies exist, but none allowed",
    }
    for reason, text in words.items():
        verdict = Denied(reason, "a/p")
        failure = denial(verdict, "rejection", Explanation(verdict, "a/p"))
        assert (failure.text, failure.policy, failure.reason) == (text, "a/p", reason)


def test_a_denial_says_which_rule_came_nearest_and_why_it_did_not_match() -> None:
    names = (StringMatch(StringMatchKind.EXACT, "shop"),)
    only_shop = replace(
        DENY_80, action=Action.ALLOW, rules=(((Match(namespaces=names, destination_ports=(80,)),),),), numbers=(3,)
    )
    connections = LiveConnections(PodPolicy(known=True, policies=(only_shop,)), never, SharedIndexes())
    refused = connections.admit(Live(peer=Identity("td", "other", "x")))
    assert refused is not None
    assert refused.text.endswith("allow policies exist, but none allowed")
    assert (refused.policy, refused.reason) == ("a/p", Reason.NO_ALLOW_MATCHED)
    assert refused.detail.endswith("nearest is rule 3 of a/p: source.namespaces: other is not shop")
    assert connections.admit(Live(peer=Identity("td", "shop", "x"))) is None


def test_what_was_said_of_one_policy_is_not_said_of_the_next() -> None:
    connections = LiveConnections(PodPolicy(known=True, policies=(DENY_80,)), never, SharedIndexes())
    live = Live()
    for number in range(300):
        assert connections.admit(Live(peer=Identity("td", "n", f"s{number}"))) is not None
    assert len(connections._grounds) == 300 - 256, "begun anew when it was full"
    assert connections.admit(live) == connections.admit(live)
    connections.replace(PodPolicy(known=True, policies=(replace(DENY_80, numbers=(7,)),)))
    refused = connections.admit(live)
    assert refused is not None
    assert refused.detail == "rule 7 of a/p matches"


def test_dry_runs_are_told_once_and_cut_nobody() -> None:
    told: list[tuple[Verdict, tuple[DryRun, ...]]] = []
    dry = replace(DENY_80, dry_run=True)
    connections = LiveConnections(
        PodPolicy(known=True), never, SharedIndexes(), lambda _, verdict, dry_runs: told.append((verdict, dry_runs))
    )
    live = Live()
    connections.register(live)
    assert connections.admit(live) is None
    for policies in ((dry,), (), (dry,)):
        assert connections.replace(PodPolicy(known=True, policies=policies)) == 0
    assert connections.admit(live) is None
    assert not live.cuts
    assert [dry_runs for _, dry_runs in told] == [(), (DryRun("a/p", Effect.WOULD_DENY),)]
    connections.replace(PodPolicy(known=True, policies=(DENY_80,)))
    assert [failure.policy for failure in live.cuts] == ["a/p"], "enforced, the same policy cuts"
