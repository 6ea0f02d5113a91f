"""Every verdict has its ground: the rule that decided, or the nearest and what differs."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from ambient.model.decide import PolicyIndex, judge_naive
from ambient.model.explain import LOOKED_AT, explain, ground
from ambient.model.outcome import Allowed, Denied, DryRun, Effect, Reason
from ambient.model.policy import Match
from tests.support.builders import allow, connection, deny, networks, rule, strings
from tests.support.policies import random_connection, random_policies

HERE = Match(destination_ports=(8080,))
ELSEWHERE = Match(destination_ports=(9,))


def test_explain_agrees_with_the_verdict_and_names_the_rule() -> None:
    random = Random(9)
    for _ in range(400):
        policies = random_policies(random, 6)
        given = random_connection(random)
        explanation = explain(policies, (), given)
        assert explanation.verdict == judge_naive(policies, (), given)
        if explanation.verdict.reason in (Reason.ALLOWED_BY, Reason.DENIED_BY):
            decided = next(p for p in policies if p.key == explanation.policy)
            alone = judge_naive([allow("x", decided.rules[explanation.rule - 1])], (), given)
            assert alone == Allowed(Reason.ALLOWED_BY, "default/x")
        if explanation.verdict.reason is Reason.NO_ALLOW_MATCHED:
            assert explanation.text.startswith("denied: ALLOW policies select the workload and none matches")


def test_explain_shows_the_nearest_rule_and_what_differs() -> None:
    near = allow("near", rule(Match(destination_ports=(80, 443)), Match(namespaces=strings("shop"))))
    far = allow("far", rule(Match(destination_ports=(1,)), Match(source_ips=networks("192.168.0.0/16"))))
    explanation = explain([far, near], (), connection(peer="shop/till"))
    assert (explanation.policy, explanation.rule) == ("default/near", 1)
    assert explanation.text.endswith("rule 1 of default/near: operation.ports: 8080 is not one of 80, 443")


def test_explain_says_that_a_policy_is_missing() -> None:
    explanation = explain([], ("shop/secret",), connection())
    assert "shop/secret" in explanation.text
    assert "not been received" in explanation.text


def test_explain_lists_what_dry_run_policies_would_do() -> None:
    policies = [deny("would", (), dry_run=True), deny("would-not", rule(ELSEWHERE), dry_run=True)]
    assert explain(policies, (), connection()).dry_run == (DryRun("default/would", Effect.WOULD_DENY),)


def test_explain_of_an_allow_policy_without_rules() -> None:
    assert "default/nothing has no rule" in explain([allow("nothing")], (), connection()).text


def test_explain_where_nothing_selects_the_workload() -> None:
    assert explain([], (), connection()).text == "allowed: no ALLOW policy selects the workload and no DENY matches"


@pytest.mark.parametrize(("numbers", "number"), [((), 2), ((2, 5), 5)])
def test_rules_are_named_by_their_place_in_the_resource(numbers: tuple[int, ...], number: int) -> None:
    decided = explain([deny("d", rule(ELSEWHERE), rule(HERE), numbers=numbers)], (), connection())
    assert (decided.rule, decided.text) == (number, f"denied: rule {number} of default/d matches")
    far = rule(Match(destination_ports=(9,), namespaces=strings("x")))
    nearest = explain([allow("a", far, rule(ELSEWHERE), numbers=numbers)], (), connection())
    assert nearest.rule == number
    assert f"nearest is rule {number} of default/a:" in nearest.text


def test_the_ground_of_a_denial_is_that_of_explain() -> None:
    random = Random(10)
    reasons = set()
    for _ in range(600):
        policies = random_policies(random, 6)
        given = random_connection(random)
        index = PolicyIndex(policies)
        verdict = index.judge(given)
        if isinstance(verdict, Denied):
            reasons.add(verdict.reason)
            whole, found = explain(policies, (), given), ground(index, given, verdict)
            assert (found.verdict, len(found.misses)) == (verdict, len(whole.misses))
            if verdict.reason is Reason.DENIED_BY:
                assert (found.policy, found.rule, found.text) == (whole.policy, whole.rule, whole.text)
    assert reasons == {Reason.DENIED_BY, Reason.NO_ALLOW_MATCHED}


def test_the_ground_of_a_missing_policy_and_of_what_others_decide() -> None:
    index = PolicyIndex([], ("shop/secret",))
    verdict = index.judge(connection())
    assert isinstance(verdict, Denied)
    assert ground(index, connection(), verdict).text == explain([], ("shop/secret",), connection()).text
    waypoint = Denied(Reason.NOT_ITS_WAYPOINT, detail="only wp may come in")
    assert ground(PolicyIndex(), connection(), waypoint).text == "denied: only wp may come in"
    bare = Denied(Reason.NOT_ITS_WAYPOINT)
    assert ground(PolicyIndex(), connection(), bare).text == "denied: not-its-waypoint"


def test_the_ground_of_a_denial_looks_at_few_rules() -> None:
    far = Match(destination_ports=(9,), namespaces=strings("x"))
    many = allow("many", *(rule(replace(far, destination_ports=(i + 10_000,))) for i in range(LOOKED_AT + 1)))
    index = PolicyIndex([many, allow("near", rule(ELSEWHERE))])
    verdict = Denied(Reason.NO_ALLOW_MATCHED, "default/many")
    assert ground(index, connection(), verdict).policy == "default/many"
    assert explain(index.policies, (), connection()).policy == "default/near"


def test_the_ground_of_a_denial_looks_at_few_alternatives_of_a_rule() -> None:
    far = tuple(Match(destination_ports=(i + 10_000,), namespaces=strings("x")) for i in range(LOOKED_AT))
    index = PolicyIndex([allow("many", (far, (*far, ELSEWHERE)))])
    verdict = Denied(Reason.NO_ALLOW_MATCHED, "default/many")
    assert [
        len(found.misses) for found in (ground(index, connection(), verdict), explain(index.policies, (), connection()))
    ] == [4, 3]


def test_the_policy_that_the_look_up_came_to_is_looked_at_once() -> None:
    far = Match(destination_ports=(9,), namespaces=strings("x"))
    some = allow("some", *(rule(replace(far, destination_ports=(i + 10_000,))) for i in range(LOOKED_AT - 1)))
    index = PolicyIndex([some, allow("near", rule(ELSEWHERE))])
    assert ground(index, connection(), Denied(Reason.NO_ALLOW_MATCHED, "default/some")).policy == "default/near"
