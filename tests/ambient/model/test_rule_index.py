"""The tree looks at few rules however many there are, and never leaves out one that matches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import pytest

from ambient.model.decide import PolicyIndex, judge_naive
from ambient.model.identity import Identity
from ambient.model.matching import principal_of
from ambient.model.outcome import Allowed, Connection
from ambient.model.policy import Authorization, Match, Rule
from ambient.model.rule_index import Demand, Node, asked_by, facts_of, first_match
from ambient.model.rule_split import build
from tests.support.builders import accounts, allow, connection, networks, rule, strings

MANY = 600


@dataclass(frozen=True)
class Family:
    """Rules that differ in one thing; `make(i)` is the i-th, `hit` a connection that exactly rule 7 fits."""

    make: Callable[[int], Rule]
    hit: Connection
    demand: Demand


FAMILIES = {
    "principal": Family(
        lambda i: rule(Match(principals=strings(f"cluster.local/ns/n/sa/s{i}"))),
        connection(peer="n/s7"),
        Demand.PRINCIPAL,
    ),
    "principal prefix": Family(
        lambda i: rule(Match(principals=strings(f"cluster.local/ns/n{i}-*"))),
        connection(peer="n7-x/x"),
        Demand.PRINCIPAL,
    ),
    "principals of a trust domain": Family(
        lambda i: rule(Match(principals=strings(f"td{i}/*"))),
        replace(connection(), peer=Identity("td7", "n", "s")),
        Demand.PRINCIPAL,
    ),
    "principals by the beginning of a name": Family(
        lambda i: rule(Match(principals=strings(f"cluster.local/ns/n/sa/s{i}-*"))),
        connection(peer="n/s7-x"),
        Demand.PRINCIPAL,
    ),
    "principals by the end of a namespace": Family(
        lambda i: rule(Match(principals=strings(f"*-{i}/sa/s"))), connection(peer="n-7/s"), Demand.PRINCIPAL
    ),
    "principals of a namespace": Family(
        lambda i: rule(Match(principals=strings(f"cluster.local/ns/n{i}/*"))), connection(peer="n7/x"), Demand.NAMESPACE
    ),
    "principal suffix": Family(
        lambda i: rule(Match(principals=strings(f"*-{i}"))), connection(peer="n/s-7"), Demand.PRINCIPAL
    ),
    "principals by name": Family(
        lambda i: rule(Match(principals=strings(f"*/sa/s{i}"))), connection(peer="n/s7"), Demand.NAME
    ),
    "namespace": Family(lambda i: rule(Match(namespaces=strings(f"n{i}"))), connection(peer="n7/x"), Demand.NAMESPACE),
    "account by namespace": Family(
        lambda i: rule(Match(service_accounts=accounts(f"n{i}/s"))), connection(peer="n7/s"), Demand.NAMESPACE
    ),
    "account by name": Family(
        lambda i: rule(Match(service_accounts=accounts(f"n/s{i}"))), connection(peer="n/s7"), Demand.NAME
    ),
    "account": Family(
        lambda i: rule(Match(service_accounts=accounts(f"n{i // 50}/s{i % 50}"))),
        connection(peer="n0/s7"),
        Demand.ACCOUNT,
    ),
    "port": Family(
        lambda i: rule(Match(destination_ports=(i + 1,))), connection(destination="10.0.0.1:8"), Demand.PORT
    ),
    "source": Family(
        lambda i: rule(Match(source_ips=networks(f"10.{i >> 8}.{i & 255}.0/24"))), connection("10.0.7.1"), Demand.SOURCE
    ),
    "destination": Family(
        lambda i: rule(Match(destination_ips=networks(f"fd00::{i:x}:0/112"))),
        connection("fd00::1", "[fd00::7:1]:80"),
        Demand.DESTINATION,
    ),
}


def looked_at(node: Node, given: Connection) -> int:
    """Rules that a look-up has to judge."""
    if node.demand is None:
        return len(node.entries)
    value = facts_of(given, principal_of(given), asked_by(node))[node.demand]
    reached: list[Node] = [node.rest] if node.rest is not None else []
    if value is not None:
        reached += [node.exact[value]] if value in node.exact else []
        node.reached(value, reached)
    return sum(looked_at(one, given) for one in reached)


def policies(family: Family) -> list[Authorization]:
    return [allow(f"p{i}", family.make(i)) for i in range(MANY)]


def first(root: Node, given: Connection) -> int:
    principal = principal_of(given)
    return first_match(root, given, principal, facts_of(given, principal, asked_by(root)), MANY)[0]


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_one_rule_of_many_is_found_without_looking_at_the_others(family: Family) -> None:
    root = build(policies(family))
    assert first(root, family.hit) == 7
    assert looked_at(root, family.hit) <= 4
    assert asked_by(root) & 1 << family.demand


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_connection_that_nothing_fits_looks_at_few_rules(family: Family) -> None:
    root = build(policies(family))
    given = connection("203.0.113.1", "203.0.113.2:65535", "nobody/nothing")
    assert first(root, given) == MANY
    assert looked_at(root, given) <= 4


def test_families_mixed_still_look_at_few_rules() -> None:
    mixed = [one.make(i) for i in range(MANY) for one in FAMILIES.values()]
    root = build([allow(f"p{i}", each) for i, each in enumerate(mixed)])
    assert looked_at(root, connection(peer="n7/s7")) <= 4 * len(FAMILIES)


def test_rules_that_share_a_namespace_are_told_apart_by_port() -> None:
    shared = [rule(Match(namespaces=strings("n")), Match(destination_ports=(i + 1,))) for i in range(MANY)]
    root = build([allow(f"p{i}", each) for i, each in enumerate(shared)])
    given = connection(destination="10.0.0.1:8", peer="n/x")
    assert (first(root, given), looked_at(root, given)) == (7, 1)


def test_alternatives_of_different_kinds_are_taken_apart() -> None:
    alternatives = [
        ((Match(namespaces=strings(f"n{i}")), Match(source_ips=networks(f"10.{i >> 8}.{i & 255}.0/24"))),)
        for i in range(MANY)
    ]
    root = build([allow(f"p{i}", each) for i, each in enumerate(alternatives)])
    assert first(root, connection(peer="n7/x", source="203.0.113.1")) == 7
    assert first(root, connection(peer=None, source="10.0.7.1")) == 7
    assert looked_at(root, connection(peer="n7/x")) <= 8


def test_nested_blocks_are_all_found() -> None:
    blocks = [f"10.0.0.0/{length}" for length in range(8, 33)]
    root = build([allow(f"p{i}", rule(Match(source_ips=networks(block)))) for i, block in enumerate(blocks)])
    assert first(root, connection("10.0.0.0")) == 0
    assert looked_at(root, connection("10.0.0.0")) == len(blocks)
    assert looked_at(root, connection("10.255.0.0")) == 1


def test_identical_rules_count_once_and_the_first_policy_is_named() -> None:
    same = rule(Match(not_principals=strings("*")))
    root = build([allow(f"p{i}", same) for i in range(MANY)])
    assert looked_at(root, connection()) == 1
    assert first(root, connection(peer=None)) == 0


def test_rules_that_can_never_match_are_not_kept() -> None:
    assert build([allow("p", rule(Match()), ((Match(), Match()),))]).entries == ()


def test_addresses_are_only_written_out_when_a_tree_asks() -> None:
    root = build(policies(FAMILIES["principal"]))
    given = connection()
    assert len(facts_of(given, principal_of(given), asked_by(root))) == Demand.ACCOUNT
    for demand in (Demand.ACCOUNT, Demand.SOURCE, Demand.DESTINATION):
        facts = facts_of(given, principal_of(given), 1 << demand)
        assert [at for at in range(Demand.ACCOUNT, len(Demand)) if facts[at] is not None] == [demand]
    assert facts_of(connection(peer=None), None, 1 << Demand.ACCOUNT)[Demand.ACCOUNT] is None


@pytest.mark.parametrize(
    ("alternatives", "entries"),
    [
        ((Match(namespaces=strings("a")), Match(destination_ports=(1,)), Match(source_ips=networks("10.0.0.0/8"))), 3),
        ((Match(namespaces=strings("a")), Match(namespaces=strings("b"))), 1),
        ((*(Match(namespaces=strings(f"n{i}")) for i in range(64)), Match(destination_ports=(1,))), 1),
    ],
    ids=["unlike", "alike", "unlike but too many"],
)
def test_alternatives_are_taken_apart_where_it_helps_and_is_not_too_much(
    alternatives: tuple[Match, ...], entries: int
) -> None:
    assert len(build([allow("p", (alternatives,))]).entries) == entries


@pytest.mark.parametrize("narrow_first", [True, False])
def test_of_two_clauses_that_ask_for_the_same_the_narrower_is_looked_up(narrow_first: bool) -> None:
    broad = Match(namespaces=strings(*(f"n{i}" for i in range(60))))
    narrow = [Match(namespaces=strings(f"n{i}")) for i in range(60)]
    rules = [rule(one, broad) if narrow_first else rule(broad, one) for one in narrow]
    root = build([allow(f"p{i}", each) for i, each in enumerate(rules)])
    assert (first(root, connection(peer="n7/x")), looked_at(root, connection(peer="n7/x"))) == (7, 1)


def test_wildcards_for_whole_components_are_looked_up_by_the_component_alone() -> None:
    forms = ("cluster.local/ns/n{}/*", "cluster.local/ns/n{}/sa/*", "*/sa/n{}", "*/n{}")
    root = build([allow(f"p{i}", rule(Match(principals=strings(forms[i % 4].format(i))))) for i in range(MANY)])
    assert asked_by(root) == 1 << Demand.NAMESPACE | 1 << Demand.NAME


def _tangled(count: int, values: int) -> list[Rule]:
    """Rules each of which asks for half of the same ports, sources, destinations and namespaces, never the same."""
    chance = Random(1)

    def half() -> list[int]:
        return chance.sample(range(1, values + 1), values // 2)

    return [
        rule(
            Match(
                destination_ports=tuple(half()),
                source_ips=networks(*(f"10.1.0.{n}" for n in half())),
                destination_ips=networks(*(f"10.2.0.{n}" for n in half())),
                namespaces=strings(*(f"n{n}" for n in half())),
            )
        )
        for _ in range(count)
    ]


def _nodes_for_each_value(policies: list[Authorization]) -> float:
    fields = ("destination_ports", "source_ips", "destination_ips", "namespaces")
    matches = [match for policy in policies for rule in policy.rules for clause in rule for match in clause]
    return sum(1 for _ in build(policies).below()) / sum(len(getattr(match, f)) for match in matches for f in fields)


def test_rules_that_overlap_everywhere_do_not_multiply() -> None:
    tangled = [allow(f"p{i}", each) for i, each in enumerate(_tangled(64, 40))]
    assert _nodes_for_each_value(tangled) < 8
    index = PolicyIndex(tangled)
    for n in range(1, 41):
        given = connection(f"10.1.0.{n}", f"10.2.0.{n}:{n}", f"n{n}/x")
        assert isinstance(index.judge(given), Allowed) == isinstance(judge_naive(tangled, (), given), Allowed)


def test_rules_that_overlap_everywhere_leave_the_others_as_quick_to_find() -> None:
    family = FAMILIES["principal"]
    tangled = [allow(f"p{i}", each) for i, each in enumerate(_tangled(300, 40))]
    root = build([*tangled, *policies(family)[:40]])
    assert root.demand != Demand.PRINCIPAL
    assert first(root, family.hit) == 300 + 7
    assert looked_at(root, family.hit) <= 4


def test_alternatives_are_not_taken_apart_where_each_would_repeat_a_long_list() -> None:
    either = (Match(namespaces=strings("a")), Match(destination_ports=(1,)), Match(source_ips=networks("10.0.0.0/8")))
    short, long = (networks(*(f"192.0.{n >> 8}.{n & 255}" for n in range(count))) for count in (100, 1_000))
    assert len(build([allow("p", (either, (Match(destination_ips=short),)))]).entries) == 3
    assert len(build([allow("p", (either, (Match(destination_ips=long),)))]).entries) == 1
