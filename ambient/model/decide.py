"""May this connection reach this workload? The one function that proxies, kernel rows, tests and `explain` share.

Order: a policy the workload names and that was not received refuses (its absence must never open anything); then an
enforced DENY that matches; then, if there are enforced ALLOW policies, one of them must match. dry_run policies
never decide. `judge_naive` is the definition; `PolicyIndex.judge` gives the same answers in constant time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from weakref import WeakValueDictionary

from ambient.model.matching import principal_of, rule_matches
from ambient.model.outcome import Allowed, Connection, Denied, Reason, Verdict
from ambient.model.policy import Action, Authorization
from ambient.model.rule_index import asked_by, facts_of, first_match
from ambient.model.rule_split import build

_NO_ALLOW_POLICY: Final = Allowed(Reason.NO_ALLOW_POLICY)


def judge_naive(policies: Iterable[Authorization], missing: Sequence[str], connection: Connection) -> Verdict:
    """The verdict by trying every rule; of several policies that match the first in the given order is named."""
    if missing:
        return Denied(Reason.POLICY_NOT_RECEIVED, missing[0])
    principal = principal_of(connection)
    enforced = [policy for policy in policies if not policy.dry_run]
    for policy in enforced:
        if policy.action is Action.DENY and policy_matches(policy, connection, principal):
            return Denied(Reason.DENIED_BY, policy.key)
    allows = [policy for policy in enforced if policy.action is Action.ALLOW]
    if not allows:
        return _NO_ALLOW_POLICY
    for policy in allows:
        if policy_matches(policy, connection, principal):
            return Allowed(Reason.ALLOWED_BY, policy.key)
    return Denied(Reason.NO_ALLOW_MATCHED)


def policy_matches(policy: Authorization, connection: Connection, principal: str | None) -> bool:
    return any(rule_matches(rule, connection, principal) for rule in policy.rules)


class PolicyIndex:
    """The policies of one workload, prepared once for many judgements. Immutable."""

    __slots__ = (
        "__weakref__",
        "_allow",
        "_allowed",
        "_asked",
        "_denied",
        "_deny",
        "_missing",
        "_unmatched",
        "policies",
    )

    def __init__(self, policies: Iterable[Authorization] = (), missing: Sequence[str] = ()) -> None:
        self.policies = tuple(policies)
        self._missing = Denied(Reason.POLICY_NOT_RECEIVED, missing[0]) if missing else None
        denies = [p for p in self.policies if p.action is Action.DENY and not p.dry_run]
        allows = [p for p in self.policies if p.action is Action.ALLOW and not p.dry_run]
        self._deny = build(denies)
        self._allow = build(allows)
        # Verdicts are made here: making one costs as much as finding it.
        self._denied = [Denied(Reason.DENIED_BY, policy.key) for policy in denies]
        self._allowed = [Allowed(Reason.ALLOWED_BY, policy.key) for policy in allows]
        self._unmatched = [Denied(Reason.NO_ALLOW_MATCHED, policy.key) for policy in allows]
        self._asked = asked_by(self._deny) | asked_by(self._allow)

    def judge(self, connection: Connection) -> Verdict:
        """Same verdict as `judge_naive`, except that a refusal because nothing allowed may name a policy that came
        near, as a hint for people (`explain` finds the nearest)."""
        if self._missing is not None:
            return self._missing
        principal = principal_of(connection)
        facts = facts_of(connection, principal, self._asked)
        none = len(self._denied)
        if none:
            first, _ = first_match(self._deny, connection, principal, facts, none)
            if first < none:
                return self._denied[first]
        none = len(self._allowed)
        if not none:
            return _NO_ALLOW_POLICY
        first, near = first_match(self._allow, connection, principal, facts, none)
        if first < none:
            return self._allowed[first]
        return self._unmatched[near.order if near is not None else 0]


class SharedIndexes:
    """One index for all workloads with the same policies, for as long as one of them uses it."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[tuple[Authorization, ...], tuple[str, ...]], PolicyIndex] = (
            WeakValueDictionary()
        )

    def of(self, policies: tuple[Authorization, ...], missing: tuple[str, ...]) -> PolicyIndex:
        """The index of this set, built when nobody has it."""
        found = self._known.get((policies, missing))
        if found is None:
            found = self._known[policies, missing] = PolicyIndex(policies, missing)
        return found
