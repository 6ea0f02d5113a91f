"""AuthorizationPolicy -> the Authorization ztunnels enforce, and the condition that says what became of it. Pure.

A ztunnel sees no HTTP. Of an ALLOW policy the rules that ask for HTTP are left out (so less is allowed); of a DENY
policy only the HTTP fields are, which broadens a rule that has others beside them and leaves one without effect
that has none: the condition says which. A stored policy that is invalid, without a good version to stand in, closes
what it selects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ambient.control.derive_rule import Translated, translate
from ambient.control.derive_select import ByLabel
from ambient.errors import InvalidInput
from ambient.kube.objects import AuthorizationPolicy, Condition, Pod, Records, RefusedObject, Service
from ambient.model.policy import Action, Authorization, PolicyScope

DRY_RUN = "istio.io/dry-run"
ACCEPTED = "ZtunnelAccepted"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
"""How the annotation may be written, as Go reads a boolean. Anything else is no dry run, and said so."""
_L7 = "In ambient mode you must use a waypoint proxy to enforce HTTP rules."


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Policies by key, their conditions by record key, and who they select."""

    policies: Mapping[str, Authorization]
    conditions: Mapping[str, tuple[Condition, ...]]
    _selectors: ByLabel
    _root_namespace: str

    def selecting(self, pod: Pod) -> tuple[str, ...]:
        """Keys of the policies whose selector fits the pod, sorted."""
        return tuple(
            sorted(
                {
                    *self._selectors.names(pod.namespace, pod.labels),
                    *self._selectors.names(self._root_namespace, pod.labels),
                }
            )
        )


def policy_set(
    records: Records, root_namespace: str, *, dry_run: bool, same_domains: frozenset[str] = frozenset()
) -> PolicySet:
    """Translate every AuthorizationPolicy. `dry_run`: send policies with the dry-run annotation (never enforced).
    `same_domains`: trust domains that stand for each other."""
    policies: dict[str, Authorization] = {}
    conditions: dict[str, tuple[Condition, ...]] = {}
    selectors = ByLabel()
    for record in records.of(AuthorizationPolicy):
        if record.target_refs:
            conditions[record.key] = tuple(_targets(record, records))
            continue
        policy, condition = _one(record, root_namespace, dry_run, same_domains)
        conditions[record.key] = (condition,)
        if policy is not None:
            policies[policy.key] = policy
            if record.selector is not None:
                selectors.add(record.namespace, record.selector, policy.key)
    for refused in records.refused:
        if refused.kind == AuthorizationPolicy.kind:
            conditions[refused.key] = (_refusal(refused),)
            closing = None if refused.stands else _closing(refused, root_namespace)
            if closing is not None:
                policy, selector = closing
                policies[policy.key] = policy
                if selector:
                    selectors.add(refused.namespace, selector, policy.key)
    return PolicySet(MappingProxyType(policies), MappingProxyType(conditions), selectors, root_namespace)


def _scope(namespace: str, selector: Mapping[str, str] | None, root_namespace: str) -> PolicyScope:
    if selector:
        return PolicyScope.WORKLOAD_SELECTOR
    return PolicyScope.GLOBAL if namespace == root_namespace else PolicyScope.NAMESPACE


def _one(
    record: AuthorizationPolicy, root_namespace: str, dry_run_sent: bool, same_domains: frozenset[str]
) -> tuple[Authorization | None, Condition]:
    if record.action not in ("ALLOW", "DENY"):
        return None, _unsupported(f"ztunnel does not support the {record.action} action", sent=False)
    dry_run = record.annotations.get(DRY_RUN) in _TRUE
    if dry_run and not dry_run_sent:
        name = f"{record.namespace}/{record.name}"
        why = f'found policy "{name}" using dry-run annotation, but support for ambient dry-run'
        return None, _unsupported(f"{why} authorizationPolicies isn't enabled", sent=False)
    action = Action[record.action]
    translated = translate(record, action, same_domains)
    policy = Authorization(
        name=record.name,
        namespace=record.namespace,
        scope=_scope(record.namespace, record.selector, root_namespace),
        action=action,
        rules=translated.rules,
        dry_run=dry_run,
        numbers=translated.numbers,
    )
    return policy, _condition(record, translated)


def _unsupported(message: str, *, sent: bool) -> Condition:
    return Condition(ACCEPTED, "True" if sent else "False", "UnsupportedValue", message)


def _condition(record: AuthorizationPolicy, translated: Translated) -> Condition:
    if not translated.unsupported:
        return Condition(ACCEPTED, "True", "Accepted", f"attached to ztunnel{_unread_dry_run(record)}")
    start = f"ztunnel does not support HTTP attributes (found: {', '.join(translated.unsupported)}). {_L7} "
    if record.action == "ALLOW":
        rest = (
            "Within an ALLOW policy, rules matching HTTP attributes are omitted."
            " This will be more restrictive than requested."
        )
    elif len(translated.inert) == len(record.rules):
        rest = (
            "After omitting unsupported HTTP attributes, this DENY policy has no enforceable rules at ztunnel and"
            " will have no effect. Deploy a waypoint proxy and use a targetRef to enforce this policy."
        )
    else:
        rest = (
            "DENY policy with HTTP attributes is enforced without the HTTP rules."
            " This will be more restrictive than requested."
        )
        if translated.inert:
            numbers = ", ".join(str(i + 1) for i in translated.inert)
            rest += f" Rules that have no effect at ztunnel because nothing else is left of a part: {numbers}."
    return _unsupported(start + rest + _unread_dry_run(record), sent=True)


def _unread_dry_run(record: AuthorizationPolicy) -> str:
    written = record.annotations.get(DRY_RUN, "false")
    if written in _TRUE or written in _FALSE:
        return ""
    return f"; annotation {DRY_RUN} is {written!r}, which is no boolean: the policy is enforced"


def _targets(record: AuthorizationPolicy, records: Records) -> Iterable[Condition]:
    """What the policy attaches to. It is the waypoint's affair; a ztunnel never sees it."""
    for ref in record.target_refs[:1]:
        namespace = ref.namespace or record.namespace
        name = f"{ref.kind} {namespace}/{ref.name}"
        if ref.kind == "Service" and records.find(Service, namespace, ref.name) is not None:
            yield Condition("WaypointAccepted", "False", "AncestorNotBound", f"{name} is not bound to a waypoint")
        else:
            yield Condition("WaypointAccepted", "False", "TargetNotFound", f"{name} was not found")


def _refusal(refused: RefusedObject) -> Condition:
    stands = "its last good version stays in force" if refused.stands else "what it selects is closed until then"
    return Condition(ACCEPTED, "False", "Invalid", f"{_why(refused.error)}; {stands}")


def _why(error: InvalidInput) -> str:
    return ": ".join(part for part in (error.where, error.why) if part) or str(error)


def _closing(refused: RefusedObject, root_namespace: str) -> tuple[Authorization, Mapping[str, str] | None] | None:
    """A policy in the place of an unreadable one that lets nothing through where the real one would have applied.

    What it selects is taken from it where that much can be read, else its whole namespace (or mesh).
    """
    metadata = refused.raw.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    if isinstance(annotations, Mapping) and str(annotations.get(DRY_RUN)) in _TRUE:
        return None  # it would have decided nothing
    spec = refused.raw.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    action = spec.get("action", "ALLOW" if refused.raw else "DENY")
    if action in ("AUDIT", "CUSTOM") or "targetRef" in spec or "targetRefs" in spec:
        return None
    selector = readable_selector(spec)
    policy = Authorization(
        name=refused.name,
        namespace=refused.namespace,
        scope=_scope(refused.namespace, selector, root_namespace),
        action=Action.ALLOW if action == "ALLOW" else Action.DENY,
        rules=() if action == "ALLOW" else ((),),
    )
    return policy, selector


def readable_selector(spec: Mapping[str, object]) -> Mapping[str, str] | None:
    """matchLabels of a spec that is otherwise invalid; None when it has none or they cannot be read."""
    selector = spec.get("selector")
    labels = selector.get("matchLabels") if isinstance(selector, Mapping) else None
    if not isinstance(labels, Mapping) or not labels:
        return None
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in labels.items()):
        return None
    return {str(key): str(value) for key, value in labels.items()}
