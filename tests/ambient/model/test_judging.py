"""The index judges like the definition, over very many random pairs; and whatever it loses is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from ambient.model.decide import PolicyIndex, judge_naive
from ambient.model.outcome import Connection, Reason
from ambient.model.policy import Authorization
from ambient.model.rule_index import Node
from tests.support.judging import comparable, compare, disagreement
from tests.support.policies import random_connection, random_policies

PAIRS = 200_000


def test_the_index_judges_like_the_definition() -> None:
    """`./dev campaign judging` takes more pairs and other seeds."""
    found = compare(7, PAIRS)
    assert found.total() >= PAIRS
    for reason in (Reason.NO_ALLOW_POLICY, Reason.ALLOWED_BY, Reason.DENIED_BY, Reason.NO_ALLOW_MATCHED):
        assert found[reason] > PAIRS / 100, f"{reason} hardly ever came up: {found}"


def roots(index: PolicyIndex) -> tuple[Node, Node]:
    return index._deny, index._allow


def nodes(index: PolicyIndex) -> list[Node]:
    return [node for root in roots(index) for node in root.below()]


def no_exact(node: Node) -> None:
    node.exact = {}


def no_prefixes(node: Node) -> None:
    node.prefixes = ()


def no_suffixes(node: Node) -> None:
    node.suffixes = ()


def no_blocks(node: Node) -> None:
    node.blocks = ()


def no_presence(node: Node) -> None:
    node.present = None


def no_rest(node: Node) -> None:
    node.rest = None


def no_last_entry(node: Node) -> None:
    node.entries = node.entries[:-1]


def not_wide(node: Node) -> None:
    node.wide = False


def only_the_first_length(node: Node) -> None:
    node.prefixes, node.suffixes, node.blocks = node.prefixes[:1], node.suffixes[:1], node.blocks[:1]


@pytest.mark.parametrize(
    "broken",
    [
        no_exact,
        no_prefixes,
        no_suffixes,
        no_blocks,
        no_presence,
        no_rest,
        no_last_entry,
        not_wide,
        only_the_first_length,
    ],
)
def test_the_comparison_notices_an_index_without_one_of_its_parts(broken: Callable[[Node], None]) -> None:
    """Sabotage: every node of every index loses it."""
    random = Random(8)
    for _ in range(400):
        policies = random_policies(random, 20)
        index = PolicyIndex(policies)
        for node in nodes(index):
            broken(node)
        if disagreement(policies, index, [random_connection(random) for _ in range(50)]) is not None:
            return
    pytest.fail("it made no difference anywhere")


def without(policies: list[Authorization], order: int, action: object, rule: object) -> list[Authorization]:
    """The policies of which the `order`-th enforced one of that action has lost the rule."""
    enforced = [i for i, one in enumerate(policies) if one.action is action and not one.dry_run]
    at = enforced[order]
    kept = tuple(one for one in policies[at].rules if one != rule)
    return [*policies[:at], replace(policies[at], rules=kept), *policies[at + 1 :]]


def lost_entries(policies: list[Authorization], connections: list[Connection]) -> tuple[int, int]:
    """(rules whose loss changes a verdict by the definition, of them those whose loss from the index is noticed)."""
    matters = noticed = 0
    index = PolicyIndex(policies)
    actions = (policy.action for policy in policies)
    denies, allows = sorted(set(actions), reverse=True)
    for root, action in zip(roots(index), (denies, allows), strict=True):
        entries = {id(entry): entry for node in root.below() for entry in node.entries}
        for entry in entries.values():
            poorer = without(policies, entry.order, action, entry.rule)
            if poorer == policies or all(
                comparable(judge_naive(poorer, (), one)) == comparable(judge_naive(policies, (), one))
                for one in connections
            ):
                continue
            matters += 1
            sabotaged = PolicyIndex(policies)
            for node in nodes(sabotaged):
                node.entries = tuple(one for one in node.entries if one != entry)
            noticed += disagreement(policies, sabotaged, connections) is not None
    return matters, noticed


def test_the_comparison_notices_every_single_rule_that_the_index_has_lost() -> None:
    """Sabotage: one rule at a time is taken out of the tree, wherever its loss can show at all."""
    random = Random(9)
    matters = noticed = 0
    while matters < 300:
        policies = random_policies(random, 6)
        if len({policy.action for policy in policies}) == 2:
            found = lost_entries(policies, [random_connection(random) for _ in range(40)])
            matters, noticed = matters + found[0], noticed + found[1]
    assert noticed == matters
