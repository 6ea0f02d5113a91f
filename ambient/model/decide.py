"""May this connection reach this workload? The one function that proxies, kernel rows, tests and `explain` share.

Order: a policy the workload names and that was not received refuses (its absence must never open anything); then an
enforced DENY that matches; then, if there are enforced ALLOW policies, one of them must match. Dry-run policies
never decide; what they would do is told apart. `judge_naive` and `dry_run_naive` are the definition; `PolicyIndex`
gives the same answers in constant time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final
from weakref import WeakValueDictionary

from ambient.model.matching import principal_of, rule_matches
from ambient.model.outcome import Allowed, Connection, Denied, DryRun, Effect, Reason, Verdict
from ambient.model.policy import Action, Authorization
from ambient.model.rule_index import asked_by, every_match, facts_of, first_match
from ambient.model.rule_split import build

_NO_ALLOW_POLICY: Final = Allowed(Reason.NO_ALLOW_POLICY)
_DECIDED_BEFORE_ALLOW: Final = (Reason.DENIED_BY, Reason.POLICY_NOT_RECEIVED, Reason.NOT_ITS_WAYPOINT)


def past_waypoint(waypoints: Collection[str], open_ports: Collection[int], connection: Connection) -> Denied | None:
    """Behind a waypoint only the waypoint comes in, and plain text proves nobody; None where policies decide.
    `waypoints`, `open_ports`: of the workload, from `ambient.model.waypoints`."""
    if not waypoints or connection.destination_port in open_ports:
        return None
    peer = connection.peer
    if peer is not None and (str(peer) in waypoints or peer.principal in waypoints):
        return None
    return Denied(Reason.NOT_ITS_WAYPOINT, detail=f"only {', '.join(sorted(waypoints))} may come in")


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


def dry_run_naive(policies: Iterable[Authorization], connection: Connection, verdict: Verdict) -> tuple[DryRun, ...]:
    """What the dry-run policies would do to a connection that got this verdict: first each DENY that matches; then,
    unless an enforced DENY or a missing policy decided, each ALLOW that matches. If none does and no enforced ALLOW
    policy is there the first dry-run ALLOW would deny, since it would be the only one that asks for anything."""
    listed = list(policies)
    principal = principal_of(connection)
    dry = [policy for policy in listed if policy.dry_run]
    matching = [policy for policy in dry if policy_matches(policy, connection, principal)]
    found = [DryRun(policy.key, Effect.WOULD_DENY) for policy in matching if policy.action is Action.DENY]
    if verdict.reason in _DECIDED_BEFORE_ALLOW:
        return tuple(found)
    allowing = [policy for policy in matching if policy.action is Action.ALLOW]
    if not allowing and verdict.reason is Reason.NO_ALLOW_POLICY:
        unmatched = [policy for policy in dry if policy.action is Action.ALLOW][:1]
        return (*found, *(DryRun(policy.key, Effect.WOULD_DENY) for policy in unmatched))
    return (*found, *(DryRun(policy.key, Effect.WOULD_ALLOW) for policy in allowing))


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
        "_dry",
        "_missing",
        "_unmatched",
        "allows",
        "by_key",
        "policies",
    )

    def __init__(self, policies: Iterable[Authorization] = (), missing: Sequence[str] = ()) -> None:
        self.policies = tuple(policies)
        self._missing = Denied(Reason.POLICY_NOT_RECEIVED, missing[0]) if missing else None
        enforced = [policy for policy in self.policies if not policy.dry_run]
        self.by_key = {policy.key: policy for policy in enforced}
        """The enforced ones."""
        denies = [policy for policy in enforced if policy.action is Action.DENY]
        self.allows = tuple(policy for policy in enforced if policy.action is Action.ALLOW)
        """The enforced ones that allow."""
        self._deny = build(denies)
        self._allow = build(self.allows)
        # Verdicts are made here: making one costs as much as finding it.
        self._denied = [Denied(Reason.DENIED_BY, policy.key) for policy in denies]
        self._allowed = [Allowed(Reason.ALLOWED_BY, policy.key) for policy in self.allows]
        self._unmatched = [Denied(Reason.NO_ALLOW_MATCHED, policy.key) for policy in self.allows]
        self._asked = asked_by(self._deny) | asked_by(self._allow)
        self._dry = _DryRuns(self.policies) if len(enforced) < len(self.policies) else None

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

    def dry_run(self, connection: Connection, verdict: Verdict) -> tuple[DryRun, ...]:
        """As `dry_run_naive`; `verdict` is what `judge` said."""
        return () if self._dry is None else self._dry.effects(connection, verdict)


class _DryRuns:
    """The dry-run policies of a set, prepared like the others."""

    __slots__ = ("_allow", "_allows", "_asked", "_denies", "_deny")

    def __init__(self, policies: Sequence[Authorization]) -> None:
        denies = [policy for policy in policies if policy.dry_run and policy.action is Action.DENY]
        allows = [policy for policy in policies if policy.dry_run and policy.action is Action.ALLOW]
        self._deny = build(denies, every=True)
        self._allow = build(allows, every=True)
        self._asked = asked_by(self._deny) | asked_by(self._allow)
        self._denies = [DryRun(policy.key, Effect.WOULD_DENY) for policy in denies]
        self._allows = [DryRun(policy.key, Effect.WOULD_ALLOW) for policy in allows]

    def effects(self, connection: Connection, verdict: Verdict) -> tuple[DryRun, ...]:
        principal = principal_of(connection)
        facts = facts_of(connection, principal, self._asked)
        found = [self._denies[order] for order in every_match(self._deny, connection, principal, facts)]
        if verdict.reason in _DECIDED_BEFORE_ALLOW:
            return tuple(found)
        allowing = every_match(self._allow, connection, principal, facts)
        if not allowing and verdict.reason is Reason.NO_ALLOW_POLICY:
            found += [DryRun(one.policy, Effect.WOULD_DENY) for one in self._allows[:1]]
        return (*found, *(self._allows[order] for order in allowing))


class SharedIndexes:
    """One index for all workloads with the same policies, for as long as one of them uses it."""

    __slots__ = ("_known", "_same")

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[tuple[Authorization, ...], tuple[str, ...]], PolicyIndex] = (
            WeakValueDictionary()
        )
        self._same: WeakValueDictionary[tuple[tuple[int, ...], tuple[str, ...]], PolicyIndex] = WeakValueDictionary()
        """By the very objects, which their index keeps alive: to compare thousands by what is in them takes long."""

    def of(self, policies: tuple[Authorization, ...], missing: tuple[str, ...]) -> PolicyIndex:
        """The index of this set, built when nobody has it."""
        same = (tuple(map(id, policies)), missing)
        found = self._same.get(same) or self._known.get((policies, missing))
        if found is None:
            found = self._known[policies, missing] = self._same[same] = PolicyIndex(policies, missing)
        return found
