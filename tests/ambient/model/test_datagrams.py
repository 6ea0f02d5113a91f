"""Policy of UDP and ICMP: what is asked, what an unproven sender can do, and that rows say what policy says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from random import Random

from ambient.model.datagrams import judge_datagram, rows_of_datagrams
from ambient.model.deny import Guarded
from ambient.model.identity import Identity
from ambient.model.outcome import Allowed, Connection, Denied, Reason
from ambient.model.policy import Action, Authorization, Datagram, Match, PolicyScope, StringMatch, StringMatchKind
from tests.support.datagrams import packets, scene

WEB = Identity("cluster.local", "shop", "web")
POD, PEER = ip_address("10.0.0.1"), ip_address("10.0.0.2")
FROM_WEB = Match(principals=(StringMatch(StringMatchKind.EXACT, WEB.principal),))


def policy(action: Action, match: Match, *datagrams: Datagram) -> Authorization:
    return Authorization(
        name="p",
        namespace="shop",
        scope=PolicyScope.NAMESPACE,
        action=action,
        rules=(((match,),),),
        datagrams=frozenset(datagrams),
    )


def verdict(one: Authorization, peer: Identity | None, protocol: Datagram = Datagram.UDP, port: int = 53) -> Reason:
    found = judge_datagram([one], protocol, Connection(PEER, POD, port, peer))
    assert isinstance(found, Allowed | Denied)
    return found.reason


def test_a_policy_is_about_what_it_names_only() -> None:
    deny = policy(Action.DENY, Match(destination_ports=(53,)), Datagram.UDP)
    assert verdict(deny, None) is Reason.DENIED_BY
    assert verdict(deny, None, port=54) is Reason.NO_ALLOW_POLICY
    assert verdict(replace(deny, datagrams=frozenset()), None) is Reason.NO_ALLOW_POLICY
    assert verdict(deny, None, Datagram.ICMP, 0) is Reason.NO_ALLOW_POLICY


def test_an_identity_that_nobody_proves_opens_nothing() -> None:
    allow = policy(Action.ALLOW, FROM_WEB, Datagram.UDP)
    assert verdict(allow, WEB) is Reason.ALLOWED_BY
    assert verdict(allow, None) is Reason.NO_ALLOW_MATCHED
    nobody_of_x = (StringMatch(StringMatchKind.EXACT, "x"),)
    for other in (Match(not_principals=FROM_WEB.principals), Match(not_namespaces=nobody_of_x)):
        assert verdict(policy(Action.ALLOW, other, Datagram.UDP), None) is Reason.NO_ALLOW_MATCHED


def test_who_proves_nothing_may_be_whom_a_deny_means() -> None:
    deny = policy(Action.DENY, FROM_WEB, Datagram.UDP)
    assert verdict(deny, None) is Reason.DENIED_BY
    assert verdict(deny, WEB) is Reason.DENIED_BY
    assert verdict(deny, Identity("cluster.local", "shop", "other")) is Reason.NO_ALLOW_POLICY
    assert (
        verdict(policy(Action.DENY, replace(FROM_WEB, destination_ports=(9,)), Datagram.UDP), None)
        is Reason.NO_ALLOW_POLICY
    )


def test_rows_say_what_policy_says() -> None:
    random, refused = Random(5), 0
    for _ in range(150):
        one = scene(random)
        for protocol, packet in packets(one, random, 25):
            wanted = one.denied(protocol, packet)
            assert one.denied_by_rows(protocol, packet) is wanted, (one, protocol, packet)
            refused += wanted
    assert refused > 300


def test_no_policy_that_asks_means_no_rows() -> None:
    pod = Guarded(WEB, (policy(Action.DENY, FROM_WEB),))
    rows = rows_of_datagrams(pod, POD, Datagram.UDP, {PEER: WEB})
    assert (rows.unproven, rows.proven) == ((), ())
