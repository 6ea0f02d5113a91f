"""Verdicts: their order and reasons, and that the index judges exactly like the definition."""

from __future__ import annotations

import gc
from dataclasses import replace
from random import Random

import pytest

from ambient.model.decide import PolicyIndex, SharedIndexes, explain, judge_naive
from ambient.model.outcome import Allowed, Denied, Reason, Verdict
from ambient.model.policy import Action, Authorization, Match
from tests.support.builders import allow, connection, deny, networks, rule, strings
from tests.support.policies import random_connection, random_policies

HERE = Match(destination_ports=(8080,))
ELSEWHERE = Match(destination_ports=(9,))
PLAINTEXT = Match(not_principals=strings("*"))

TABLE: list[tuple[str, list[Authorization], list[str], Verdict]] = [
    ("no policy at all", [], [], Allowed(Reason.NO_ALLOW_POLICY)),
    ("a DENY that does not match", [deny("d", rule(ELSEWHERE))], [], Allowed(Reason.NO_ALLOW_POLICY)),
    ("a DENY that matches", [deny("d", rule(HERE))], [], Denied(Reason.DENIED_BY, "default/d")),
    ("DENY wins over ALLOW", [allow("a", ()), deny("d", rule(HERE))], [], Denied(Reason.DENIED_BY, "default/d")),
    (
        "the first of two DENYs is named",
        [deny("d", rule(HERE)), deny("e", ())],
        [],
        Denied(Reason.DENIED_BY, "default/d"),
    ),
    ("a later rule of a DENY", [deny("d", rule(ELSEWHERE), rule(HERE))], [], Denied(Reason.DENIED_BY, "default/d")),
    ("a DENY without rules never matches", [deny("d")], [], Allowed(Reason.NO_ALLOW_POLICY)),
    ("a DENY with an empty rule matches all", [deny("d", ())], [], Denied(Reason.DENIED_BY, "default/d")),
    ("a DENY whose only clause is empty matches", [deny("d", rule(Match()))], [], Allowed(Reason.NO_ALLOW_POLICY)),
    ("an ALLOW that matches", [allow("a", rule(HERE))], [], Allowed(Reason.ALLOWED_BY, "default/a")),
    ("an ALLOW that does not match", [allow("a", rule(ELSEWHERE))], [], Denied(Reason.NO_ALLOW_MATCHED, "default/a")),
    ("an ALLOW without rules allows nothing", [allow("a")], [], Denied(Reason.NO_ALLOW_MATCHED, "default/a")),
    (
        "one ALLOW of two",
        [allow("a", rule(ELSEWHERE)), allow("b", rule(HERE))],
        [],
        Allowed(Reason.ALLOWED_BY, "default/b"),
    ),
    ("a dry-run DENY decides nothing", [deny("d", (), dry_run=True)], [], Allowed(Reason.NO_ALLOW_POLICY)),
    (
        "a dry-run ALLOW allows nothing and forbids nothing",
        [allow("a", dry_run=True)],
        [],
        Allowed(Reason.NO_ALLOW_POLICY),
    ),
    (
        "a dry-run ALLOW does not open",
        [allow("a", rule(ELSEWHERE)), allow("b", (), dry_run=True)],
        [],
        Denied(Reason.NO_ALLOW_MATCHED, "default/a"),
    ),
    ("a named policy that is missing refuses", [], ["x/y"], Denied(Reason.POLICY_NOT_RECEIVED, "x/y")),
    (
        "a missing policy refuses what another allows",
        [allow("a", ())],
        ["x/y"],
        Denied(Reason.POLICY_NOT_RECEIVED, "x/y"),
    ),
]


@pytest.mark.parametrize(("policies", "missing", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_verdicts(policies: list[Authorization], missing: list[str], expected: Verdict) -> None:
    given = connection()
    assert PolicyIndex(policies, missing).judge(given) == expected
    naive = judge_naive(policies, missing, given)
    assert (type(naive), naive.reason) == (type(expected), expected.reason)


def test_strict_refuses_plaintext_and_lets_identities_through() -> None:
    index = PolicyIndex([deny("strict", rule(PLAINTEXT))])
    assert index.judge(connection(peer=None)) == Denied(Reason.DENIED_BY, "default/strict")
    assert index.judge(connection(peer="a/b")) == Allowed(Reason.NO_ALLOW_POLICY)


def test_explain_agrees_with_the_verdict_and_names_the_rule() -> None:
    random = Random(9)
    for _ in range(400):
        policies = random_policies(random, 6)
        given = random_connection(random)
        explanation = explain(policies, (), given)
        assert explanation.verdict == judge_naive(policies, (), given)
        if explanation.verdict.reason in (Reason.ALLOWED_BY, Reason.DENIED_BY):
            decided = next(p for p in policies if p.key == explanation.policy)
            alone = judge_naive([allow("x", decided.rules[explanation.rule])], (), given)
            assert alone == Allowed(Reason.ALLOWED_BY, "default/x")
        if explanation.verdict.reason is Reason.NO_ALLOW_MATCHED:
            assert explanation.text.startswith("denied: ALLOW policies select the workload and none matches")


def test_explain_shows_the_nearest_rule_and_what_differs() -> None:
    near = allow("near", rule(Match(destination_ports=(80, 443)), Match(namespaces=strings("shop"))))
    far = allow("far", rule(Match(destination_ports=(1,)), Match(source_ips=networks("192.168.0.0/16"))))
    explanation = explain([far, near], (), connection(peer="shop/till"))
    assert (explanation.policy, explanation.rule) == ("default/near", 0)
    assert explanation.text.endswith("rule 1 of default/near: operation.ports: 8080 is not one of 80, 443")


def test_explain_says_that_a_policy_is_missing() -> None:
    explanation = explain([], ("shop/secret",), connection())
    assert "shop/secret" in explanation.text
    assert "not been received" in explanation.text


def test_explain_lists_dry_run_policies_that_would_have_matched() -> None:
    policies = [deny("would", (), dry_run=True), deny("would-not", rule(ELSEWHERE), dry_run=True)]
    assert explain(policies, (), connection()).dry_run == ("default/would",)


def test_explain_of_an_allow_policy_without_rules() -> None:
    assert "default/nothing has no rule" in explain([allow("nothing")], (), connection()).text


def test_explain_where_nothing_selects_the_workload() -> None:
    assert explain([], (), connection()).text == "allowed: no ALLOW policy selects the workload and no DENY matches"


def test_one_set_of_policies_has_one_index_while_somebody_uses_it() -> None:
    indexes = SharedIndexes()
    policy = allow("a", rule(HERE))
    first = indexes.of((policy,), ())
    assert indexes.of((replace(policy),), ()) is first
    assert indexes.of((policy,), ("n/late",)) is not first
    assert indexes.of((replace(policy, action=Action.DENY),), ()) is not first
    del first
    gc.collect()
    assert len(indexes._known) == 0
