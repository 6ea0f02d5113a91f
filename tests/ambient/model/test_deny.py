"""Rows refuse what `decide` refuses of what the node knows, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product
from random import Random

import pytest

from ambient.model import deny
from ambient.model.address import IpAddress
from ambient.model.boxes import MOST_BOXES
from ambient.model.decide import judge_naive
from ambient.model.deny import ANY_PORT, Guarded, Rows, Shades, judge, judge_tunnel, look_up, of_arriving, of_leaving
from ambient.model.identity import Identity
from ambient.model.outcome import Connection, Denied, DryRun, Effect, Reason
from ambient.model.policy import Action, Authorization, Match, PolicyScope, Rule, StringMatch, StringMatchKind
from tests.support.deny import Scene, effects, scene
from tests.support.policies import ACCOUNTS, DOMAINS, NAMESPACES, PORTS

POD = ip_address("10.0.0.1")
CLIENT = ip_address("10.0.0.2")
WHO = Identity("cluster.local", "shop", "till")


def policy(action: Action, *rules: Rule, dry_run: bool = False, name: str = "one") -> Authorization:
    return Authorization(
        name=name, namespace="a", scope=PolicyScope.NAMESPACE, action=action, rules=rules, dry_run=dry_run
    )


def rule(match: Match) -> Rule:
    return ((match,),)


def from_block(block: str) -> Rule:
    return rule(Match(source_ips=(ip_network(block),)))


def guarded(*policies: Authorization) -> Guarded:
    return Guarded(WHO, policies)


def refused(rows: Rows, port: int, peer: str) -> bool:
    return deny.refuses(judge(rows.enforced, port, ip_address(peer)))


@pytest.mark.parametrize("arriving", [True, False])
def test_rows_say_what_the_definition_says_of_random_policies_and_flows(arriving: bool) -> None:
    random = Random(7)
    refusals = 0
    for _ in range(600):
        one = scene(random, arriving=arriving)
        for _ in range(10):
            source, port = one.flow(random)
            connection = one.connection(source, port)
            peer = source if arriving else one.address
            found = deny.refuses(judge(one.rows.enforced, port, peer))
            assert found == one.denied(connection), (one.policies, connection)
            refusals += found
    assert 1_000 < refusals < 5_000


@pytest.mark.parametrize("arriving", [True, False])
def test_shadow_rows_tell_the_same_effects_as_the_definition(arriving: bool) -> None:
    random = Random(8)
    told = 0
    for _ in range(600):
        one = scene(random, arriving=arriving)
        for _ in range(10):
            source, port = one.flow(random)
            wanted = set(one.dry_run(one.connection(source, port)))
            found = _effects(one, port, source if arriving else one.address)
            assert found == wanted
            told += len(wanted)
    assert told > 500


def _effects(one: Scene, port: int, peer: IpAddress) -> set[DryRun]:
    """As bpf/include/policy.h counts them."""
    every = look_up(one.rows.shadow, ANY_PORT, peer)
    if every is None:
        return set()
    own = look_up(one.rows.shadow, port, peer) or look_up(one.rows.shadow, deny.OTHER_PORT, peer) or Shades()
    enforced = judge(one.rows.enforced, port, peer)
    result = effects(own.denies, Effect.WOULD_DENY)
    if deny.Bits.REFUSES in enforced.bits:
        return result
    result |= effects(own.allows, Effect.WOULD_ALLOW)
    if not own.allows and deny.Bits.NEEDS_ALLOW not in enforced.bits and every.unmatched:
        result |= effects({every.unmatched}, Effect.WOULD_DENY)
    return result


def test_a_tunnel_is_refused_only_if_nobody_could_ask_for_anything_in_it() -> None:
    random = Random(9)
    refusals = 0
    peers = [None, *(Identity(*parts) for parts in product(DOMAINS, NAMESPACES, ACCOUNTS))]
    for _ in range(300):
        one = scene(random, arriving=True)
        for source in one.sources:
            if not deny.refuses(judge_tunnel(one.rows.enforced, source)):
                continue
            refusals += 1
            for port, peer in product((*PORTS, 7), random.sample(peers, 8)):
                connection = Connection(source, one.address, port, peer)
                assert isinstance(judge_naive(one.policies, (), connection), Denied)
    assert refusals > 100


def test_strict_refuses_plain_text_and_no_tunnel() -> None:
    anybody = (StringMatch(StringMatchKind.PRESENCE),)
    rows = of_arriving(guarded(policy(Action.DENY, rule(Match(not_principals=anybody)))), POD)
    assert refused(rows, 80, "10.0.0.2")
    assert judge(rows.enforced, 80, CLIENT).denial == Denied(Reason.DENIED_BY, "a/one")
    assert not deny.refuses(judge_tunnel(rows.enforced, CLIENT))


def test_an_identity_decides_between_pods_of_a_node_and_never_for_plain_text() -> None:
    only = guarded(policy(Action.ALLOW, rule(Match(principals=(StringMatch(StringMatchKind.EXACT, WHO.principal),)))))
    assert not refused(of_leaving(WHO, CLIENT, {POD: only}), 80, "10.0.0.1")
    assert refused(of_leaving(replace(WHO, service_account="b"), CLIENT, {POD: only}), 80, "10.0.0.1")
    arriving = of_arriving(only, POD)
    assert refused(arriving, 80, "10.0.0.2")
    assert judge(arriving.enforced, 80, CLIENT).denial == Denied(Reason.NO_ALLOW_MATCHED, "a/one")


def test_what_is_not_known_is_not_refused() -> None:
    closed = policy(Action.ALLOW)
    assert of_arriving(Guarded(WHO, (closed,), missing=True), POD) == deny.NOTHING
    assert of_leaving(WHO, CLIENT, {POD: Guarded(WHO, (closed,), missing=True)}) == deny.NOTHING
    assert not refused(of_leaving(WHO, CLIENT, {POD: guarded(closed)}), 80, "10.0.0.9")


def test_behind_a_waypoint_plain_text_finds_only_open_ports_and_pods_of_the_node_ask_ztunnel() -> None:
    pod = Guarded(WHO, waypoints=("spiffe://cluster.local/ns/a/sa/way",), open_ports=(9090,))
    rows = of_arriving(pod, POD)
    assert refused(rows, 80, "10.0.0.2")
    assert judge(rows.enforced, 80, CLIENT).denial == Denied(Reason.NOT_ITS_WAYPOINT)
    assert not refused(rows, 9090, "10.0.0.2")
    assert of_leaving(WHO, CLIENT, {POD: pod}) == deny.NOTHING


def test_blocks_inside_blocks_and_their_exceptions() -> None:
    match = Match(source_ips=(ip_network("10.0.0.0/8"),), not_source_ips=(ip_network("10.1.0.0/16"),))
    inner = policy(Action.DENY, from_block("10.1.2.0/24"), name="inner")
    rows = of_arriving(guarded(policy(Action.DENY, rule(match)), inner), POD)
    verdicts = {ip: refused(rows, 80, ip) for ip in ("10.0.0.9", "10.1.0.9", "10.1.2.9", "11.0.0.1")}
    assert verdicts == {"10.0.0.9": True, "10.1.0.9": False, "10.1.2.9": True, "11.0.0.1": False}
    assert judge(rows.enforced, 80, ip_address("10.1.2.9")).denial == Denied(Reason.DENIED_BY, "a/inner")


def test_a_block_of_the_other_family_is_nobodys() -> None:
    pod = guarded(policy(Action.DENY, from_block("::/0")))
    assert not refused(of_arriving(pod, POD), 80, "10.0.0.2")
    assert refused(of_arriving(pod, ip_address("fd00::1")), 80, "fd00::2")


def test_a_rule_too_intricate_to_tell_is_left_to_ztunnel() -> None:
    clause = tuple(Match(destination_ports=(port, 1)) for port in range(2, MOST_BOXES))
    intricate: Rule = (clause, clause)
    assert not refused(of_arriving(guarded(policy(Action.DENY, intricate)), POD), 2, "10.0.0.2")
    assert not refused(of_arriving(guarded(policy(Action.ALLOW, intricate)), POD), 70, "10.0.0.2")


def test_very_many_exceptions_are_left_to_ztunnel() -> None:
    def many(action: Action) -> Guarded:
        return guarded(policy(action, *(rule(Match(not_destination_ports=(port,))) for port in range(1, 600))))

    assert not refused(of_arriving(many(Action.DENY), POD), 80, "10.0.0.2")
    assert not refused(of_arriving(many(Action.ALLOW), POD), 80, "10.0.0.2")


def test_ten_thousand_policies_make_about_as_many_rows() -> None:
    blocks = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(5_000)]
    policies = [policy(Action.DENY, from_block(block), name=f"b{block}") for block in blocks]
    policies += [
        policy(Action.DENY, rule(Match(destination_ports=(port,))), name=f"p{port}") for port in range(1, 5_001)
    ]
    rows = of_arriving(guarded(*policies), POD)
    assert 10_000 < len(rows.enforced) < 20_100
    assert judge(rows.enforced, 9_000, ip_address("10.3.7.1")).denial == Denied(Reason.DENIED_BY, "a/b10.3.7.0/24")
    assert judge(rows.enforced, 77, ip_address("11.3.7.1")).denial == Denied(Reason.DENIED_BY, "a/p77")
    assert not refused(rows, 9_000, "11.3.7.1")
