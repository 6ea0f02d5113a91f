"""AuthorizationPolicy -> the Authorization ztunnels enforce, and the condition that says what became of it. Pure.

A ztunnel sees no HTTP. Of an ALLOW policy the rules that ask for HTTP are left out (so less is allowed); of a DENY
policy only the HTTP fields are, which broadens a rule that has others beside them and leaves one without effect
that has none: the condition says which. A stored policy that is invalid, without a good version to stand in, closes
what it selects.
"""

from __future__ import annotations

from typing import Final

from ambient.control.derive_closed import DRY_RUN, FALSE, TRUE, scope_of
from ambient.control.derive_rule import Translated, translate
from ambient.errors import InvalidInput
from ambient.kube.objects import AuthorizationPolicy, Condition, RefusedObject
from ambient.model.policy import Action, Authorization, Datagram

ACCEPTED: Final = "ZtunnelAccepted"
PROTOCOLS: Final = "ambient.mesh/protocols"
"""Annotation: what a policy is about besides TCP, "udp", "icmp" or both with a comma."""
_L7: Final = "In ambient mode you must use a waypoint proxy to enforce HTTP rules."


def is_sent(record: AuthorizationPolicy, *, dry_run: bool) -> bool:
    """Ztunnels get it. `dry_run`: those with the dry-run annotation too (never enforced)."""
    if record.target_refs or record.action not in ("ALLOW", "DENY"):
        return False
    return dry_run or record.annotations.get(DRY_RUN) not in TRUE


def derive_policy(
    record: AuthorizationPolicy, root_namespace: str, *, dry_run: bool, same_domains: frozenset[str] = frozenset()
) -> tuple[Authorization | None, Condition]:
    """A policy without targetRefs as it is sent (None: not at all), and what to say of it.

    `same_domains`: trust domains that stand for each other.
    """
    if record.action not in ("ALLOW", "DENY"):
        return None, _unsupported(f"ztunnel does not support the {record.action} action", sent=False)
    if not is_sent(record, dry_run=dry_run):
        name = f"{record.namespace}/{record.name}"
        why = f'found policy "{name}" using dry-run annotation, but support for ambient dry-run'
        return None, _unsupported(f"{why} authorizationPolicies isn't enabled", sent=False)
    action = Action[record.action]
    translated = translate(record, action, same_domains)
    policy = Authorization(
        name=record.name,
        namespace=record.namespace,
        scope=scope_of(record.namespace, record.selector, root_namespace),
        action=action,
        rules=translated.rules,
        dry_run=record.annotations.get(DRY_RUN) in TRUE,
        numbers=translated.numbers,
        datagrams=_datagrams(record)[0],
    )
    return policy, _condition(record, translated)


def _datagrams(record: AuthorizationPolicy) -> tuple[frozenset[Datagram], str]:
    """What the annotation says; where it cannot be read everything, and why. TCP may be named: it always is meant."""
    written = record.annotations.get(PROTOCOLS, "")
    words = {word.strip().lower() for word in written.split(",")} - {"", "tcp"}
    if words <= {*Datagram}:
        return frozenset(map(Datagram, words)), ""
    why = f"annotation {PROTOCOLS} is {written!r}, which is no list of tcp, udp and icmp"
    return frozenset(Datagram), f"; {why}: the policy holds for all of them"


def refusal(refused: RefusedObject) -> Condition:
    """What to say of a stored policy that is invalid."""
    stands = "its last good version stays in force" if refused.stands else "what it selects is closed until then"
    return Condition(ACCEPTED, "False", "Invalid", f"{_why(refused.error)}; {stands}")


def _unsupported(message: str, *, sent: bool) -> Condition:
    return Condition(ACCEPTED, "True" if sent else "False", "UnsupportedValue", message)


def _condition(record: AuthorizationPolicy, translated: Translated) -> Condition:
    if not translated.unsupported:
        return Condition(ACCEPTED, "True", "Accepted", f"attached to ztunnel{_unread(record)}")
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
            rest += (
                f" But rule {numbers} has no effect at ztunnel, as nothing else is left of a part of it: that is less"
                " restrictive than requested."
            )
    return _unsupported(start + rest + _unread(record), sent=True)


def _unread(record: AuthorizationPolicy) -> str:
    return _unread_dry_run(record) + _datagrams(record)[1]


def _unread_dry_run(record: AuthorizationPolicy) -> str:
    written = record.annotations.get(DRY_RUN, "false")
    if written in TRUE or written in FALSE:
        return ""
    return f"; annotation {DRY_RUN} is {written!r}, which is no boolean: the policy is enforced"


def _why(error: InvalidInput) -> str:
    return ": ".join(part for part in (error.where, error.why) if part) or str(error)
