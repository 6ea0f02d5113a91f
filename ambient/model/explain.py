"""Why a connection is allowed or denied, in words: the rule that decided, or the nearest one and what differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from ambient.model.decide import PolicyIndex, dry_run_naive, judge_naive
from ambient.model.matching import principal_of, rule_matches
from ambient.model.nearest import Difference, differences
from ambient.model.outcome import Allowed, Connection, Denied, DryRun, Reason, Verdict
from ambient.model.policy import Action, Authorization

LOOKED_AT: Final = 32
"""Rules that `ground` compares at most, and alternatives of each clause of a rule."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict with its ground. `policy` and `rule` (its number in the resource, 0 = none) name what decided or came
    nearest.

    `misses` is empty when that rule matched. `dry_run`: what the dry-run policies would do.
    """

    verdict: Verdict
    policy: str = ""
    rule: int = 0
    misses: tuple[Difference, ...] = ()
    dry_run: tuple[DryRun, ...] = ()
    text: str = ""


def explain(policies: Iterable[Authorization], missing: Sequence[str], connection: Connection) -> Explanation:
    """The whole ground, by trying every rule."""
    listed = list(policies)
    verdict = judge_naive(listed, missing, connection)
    dry = dry_run_naive(listed, connection, verdict)
    match verdict.reason:
        case Reason.POLICY_NOT_RECEIVED:
            return _missing(verdict, dry)
        case Reason.NO_ALLOW_POLICY:
            return Explanation(
                verdict, dry_run=dry, text="allowed: no ALLOW policy selects the workload and no DENY matches"
            )
        case Reason.NO_ALLOW_MATCHED:
            allows = [p for p in listed if p.action is Action.ALLOW and not p.dry_run]
            return _nearest(verdict, allows[0], _near(allows, connection), dry)
    decided = next(policy for policy in listed if policy.key == verdict.policy)
    return _decided(verdict, decided, connection, dry)


def ground(index: PolicyIndex, connection: Connection, verdict: Denied) -> Explanation:
    """Of a denial as it happens, at bounded cost: `verdict` is what the index said. What is nearest is sought among
    the rules of the policy that the look-up came to, then the first others."""
    match verdict.reason:
        case Reason.POLICY_NOT_RECEIVED:
            return _missing(verdict, ())
        case Reason.DENIED_BY:
            return _decided(verdict, index.by_key[verdict.policy], connection, ())
        case Reason.NO_ALLOW_MATCHED:
            reached = index.by_key[verdict.policy]
            ordered = chain((reached,), (policy for policy in index.allows if policy is not reached))
            return _nearest(verdict, reached, islice(_near(ordered, connection, LOOKED_AT), LOOKED_AT), ())
    return Explanation(verdict, verdict.policy, text=f"denied: {verdict.detail or verdict.reason}")


def _missing(verdict: Verdict, dry: tuple[DryRun, ...]) -> Explanation:
    text = f"denied: the workload names policy {verdict.policy}, which has not been received"
    return Explanation(verdict, verdict.policy, dry_run=dry, text=text)


def _decided(verdict: Verdict, policy: Authorization, connection: Connection, dry: tuple[DryRun, ...]) -> Explanation:
    principal = principal_of(connection)
    at = next(i for i, rule in enumerate(policy.rules) if rule_matches(rule, connection, principal))
    number = policy.number_of(at)
    word = "allowed" if isinstance(verdict, Allowed) else "denied"
    return Explanation(verdict, policy.key, number, (), dry, f"{word}: rule {number} of {policy.key} matches")


_Near = tuple[Authorization, int, tuple[Difference, ...]]


def _near(policies: Iterable[Authorization], connection: Connection, most: int | None = None) -> Iterator[_Near]:
    principal = principal_of(connection)
    for policy in policies:
        for at, rule in enumerate(policy.rules):
            yield policy, at, differences(rule, connection, principal, most)


def _nearest(verdict: Verdict, first: Authorization, ranked: Iterable[_Near], dry: tuple[DryRun, ...]) -> Explanation:
    """The rule with the fewest differences, of several the first."""
    start = "denied: ALLOW policies select the workload and none matches"
    nearest = min(ranked, key=lambda entry: len(entry[2]), default=None)
    if nearest is None:
        return Explanation(verdict, first.key, dry_run=dry, text=f"{start}; {first.key} has no rule that could match")
    policy, at, misses = nearest
    number = policy.number_of(at)
    text = f"{start}; nearest is rule {number} of {policy.key}: {'; '.join(map(str, misses))}"
    return Explanation(verdict, policy.key, number, misses, dry, text)
