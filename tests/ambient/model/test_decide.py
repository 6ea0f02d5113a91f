"""Verdicts: their order and reasons, and that the index judges exactly like the definition."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest

from ambient.model.decide import PolicyIndex, SharedIndexes, dry_run_naive, judge_naive
from ambient.model.outcome import Allowed, Denied, DryRun, Effect, Reason, Verdict
from ambient.model.policy import Action, Authorization, Match
from tests.support.builders import allow, connection, deny, rule, strings

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


D, A = Effect.WOULD_DENY, Effect.WOULD_ALLOW
DRY: list[tuple[str, list[Authorization], list[tuple[str, Effect]]]] = [
    ("none is there", [deny("d", ()), allow("a", ())], []),
    ("a DENY that matches", [deny("d", (), dry_run=True)], [("d", D)]),
    ("a DENY that does not match", [deny("d", rule(ELSEWHERE), dry_run=True)], []),
    ("two DENYs, both told", [deny("d", (), dry_run=True), deny("e", (), dry_run=True)], [("d", D), ("e", D)]),
    ("a DENY beside an enforced one", [deny("x", ()), deny("d", (), dry_run=True)], [("d", D)]),
    ("an ALLOW that matches", [allow("a", (), dry_run=True)], [("a", A)]),
    ("an ALLOW beside an enforced one", [allow("x", ()), allow("a", (), dry_run=True)], [("a", A)]),
    ("an ALLOW where nothing else allowed", [allow("x", rule(ELSEWHERE)), allow("a", (), dry_run=True)], [("a", A)]),
    ("an ALLOW that would be the only one", [allow("a", rule(ELSEWHERE), dry_run=True)], [("a", D)]),
    ("one ALLOW of two", [allow("a", dry_run=True), allow("b", (), dry_run=True)], [("b", A)]),
    ("an ALLOW that enforced ones make moot", [allow("x", ()), allow("a", dry_run=True)], []),
    ("an ALLOW where an enforced DENY decided", [deny("x", ()), allow("a", (), dry_run=True)], []),
]


@pytest.mark.parametrize(("policies", "expected"), [row[1:] for row in DRY], ids=[row[0] for row in DRY])
def test_dry_runs(policies: list[Authorization], expected: list[tuple[str, Effect]]) -> None:
    index, given = PolicyIndex(policies), connection()
    verdict = index.judge(given)
    told = tuple(DryRun(f"default/{name}", effect) for name, effect in expected)
    assert index.dry_run(given, verdict) == dry_run_naive(policies, given, verdict) == told


def test_a_missing_policy_leaves_only_dry_run_denials_to_tell() -> None:
    policies = [deny("d", (), dry_run=True), allow("a", (), dry_run=True)]
    index = PolicyIndex(policies, ("x/y",))
    verdict = index.judge(connection())
    assert index.dry_run(connection(), verdict) == (DryRun("default/d", D),)
    assert dry_run_naive(policies, connection(), verdict) == (DryRun("default/d", D),)


def test_a_refusal_because_nothing_allowed_names_a_policy_that_came_near() -> None:
    allows = [
        allow(f"a{i}", rule(Match(principals=strings(f"cluster.local/ns/n/sa/s{i}")), ELSEWHERE)) for i in range(9)
    ]
    assert PolicyIndex(allows).judge(connection(peer="n/s7")) == Denied(Reason.NO_ALLOW_MATCHED, "default/a7")
    assert PolicyIndex(allows).judge(connection(peer="n/x")) == Denied(Reason.NO_ALLOW_MATCHED, "default/a0")


def test_a_set_without_dry_runs_keeps_nothing_for_them() -> None:
    assert PolicyIndex([allow("a", ())])._dry is None
