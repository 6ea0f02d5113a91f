"""Why a connection is allowed or denied, in words: the rule that decided, or the nearest one and what differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ambient.model.decide import judge_naive, policy_matches
from ambient.model.matching import principal_of, rule_matches
from ambient.model.nearest import Difference, differences
from ambient.model.outcome import Allowed, Connection, Reason, Verdict
from ambient.model.policy import Action, Authorization


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict with its ground. `policy` and `rule` (its number in the resource, 0 = none) name what decided or came
    nearest.

    `misses` is empty when that rule matched. `dry_run`: keys of policies that would have matched if enforced.
    """

    verdict: Verdict
    policy: str = ""
    rule: int = 0
    misses: tuple[Difference, ...] = ()
    dry_run: tuple[str, ...] = ()
    text: str = ""


def explain(policies: Iterable[Authorization], missing: Sequence[str], connection: Connection) -> Explanation:
    """The whole ground, by trying every rule."""
    listed = list(policies)
    principal = principal_of(connection)
    verdict = judge_naive(listed, missing, connection)
    dry = tuple(p.key for p in listed if p.dry_run and policy_matches(p, connection, principal))
    match verdict.reason:
        case Reason.POLICY_NOT_RECEIVED:
            text = f"denied: the workload names policy {verdict.policy}, which has not been received"
            return Explanation(verdict, verdict.policy, dry_run=dry, text=text)
        case Reason.NO_ALLOW_POLICY:
            return Explanation(
                verdict, dry_run=dry, text="allowed: no ALLOW policy selects the workload and no DENY matches"
            )
        case Reason.NO_ALLOW_MATCHED:
            allows = [p for p in listed if p.action is Action.ALLOW and not p.dry_run]
            ranked = (entry for policy in allows for entry in _near(policy, connection, principal))
            return _nearest(verdict, allows[0], ranked, dry)
    decided = next(policy for policy in listed if policy.key == verdict.policy and not policy.dry_run)
    return _decided(verdict, decided, connection, dry)


def _decided(verdict: Verdict, policy: Authorization, connection: Connection, dry: tuple[str, ...]) -> Explanation:
    principal = principal_of(connection)
    at = next(i for i, rule in enumerate(policy.rules) if rule_matches(rule, connection, principal))
    number = policy.number_of(at)
    word = "allowed" if isinstance(verdict, Allowed) else "denied"
    return Explanation(verdict, policy.key, number, (), dry, f"{word}: rule {number} of {policy.key} matches")


_Near = tuple[Authorization, int, tuple[Difference, ...]]


def _near(policy: Authorization, connection: Connection, principal: str | None) -> Iterator[_Near]:
    for at, rule in enumerate(policy.rules):
        misses = differences(rule, connection, principal)
        if misses:
            yield policy, at, misses


def _nearest(verdict: Verdict, first: Authorization, ranked: Iterable[_Near], dry: tuple[str, ...]) -> Explanation:
    """The rule with the fewest differences, of several the first."""
    start = "denied: ALLOW policies select the workload and none matches"
    nearest = min(ranked, key=lambda entry: len(entry[2]), default=None)
    if nearest is None:
        return Explanation(verdict, first.key, dry_run=dry, text=f"{start}; {first.key} has no rule that could match")
    policy, at, misses = nearest
    number = policy.number_of(at)
    text = f"{start}; nearest is rule {number} of {policy.key}: {'; '.join(map(str, misses))}"
    return Explanation(verdict, policy.key, number, misses, dry, text)
