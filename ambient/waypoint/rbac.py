"""AuthorizationPolicies as per-route configuration of Envoy's RBAC filters, for HTTP requests and for CONNECTs. Pure.

Order as in Istio: what a DENY matches is refused, then, where there is an ALLOW at all, what none of them matches. What
cannot be said to Envoy never opens anything: in an ALLOW its rule is left out, in a DENY the rest of the rule decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.kube.mesh_config import Provider
from ambient.kube.policies import PolicyRule
from ambient.waypoint.access import DRY_RUN
from ambient.waypoint.asking import asked, match_filter, match_prefix, not_noted
from ambient.waypoint.front import Front, FrontPort, Policy, Protocol, View
from ambient.waypoint.rbac_rule import Context, translate
from ambient.waypoint.tunnel import ALLOW_FILTER, AUDIT_FILTER, DENY_FILTER
from ambient.waypoint.typed import Message, any_of, typed

_PER_ROUTE: Final = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute"
_FILTERS: Final = {"DENY": DENY_FILTER, "ALLOW": ALLOW_FILTER, "LOG": AUDIT_FILTER}
_ACTIONS: Final = {"ALLOW": "ALLOW", "DENY": "DENY", "AUDIT": "LOG", "CUSTOM": "DENY"}
"""A CUSTOM one that has nobody to ask refuses what it matches."""


def is_layer_4(policy: Policy) -> bool:
    """It asks for nothing that only HTTP has. Whoever a CUSTOM one asks is asked about requests."""
    return policy.action != "CUSTOM" and all(_plain(rule) for rule in policy.rules)


def _plain(rule: PolicyRule) -> bool:
    return (
        not any(one.hosts or one.not_hosts or one.methods or one.not_methods for one in rule.operations)
        and not any(one.paths or one.not_paths for one in rule.operations)
        and not any(one.request_principals or one.not_request_principals for one in rule.sources)
        and not any(when.key.startswith(("request.", "experimental.", "connection.")) for when in rule.when)
    )


def http_filters(view: View, front: Front, port: FrontPort) -> Message:
    """For the route configuration of an HTTP port: what every request has to pass."""
    return _filters(view, front, port, http=True)


def tunnel_filters(view: View, front: Front, port: FrontPort) -> Message:
    """For the CONNECT to a port: what can be judged before a byte is carried.

    A TCP port is judged here alone: a filter beside the relay would let the application's first bytes out before it
    has judged. Where it is HTTP, requests are judged one by one and get their 403.
    """
    if port.protocol in (Protocol.HTTP, Protocol.HTTP2):
        return {}
    if port.protocol is Protocol.AUTO and not all(is_layer_4(policy) for policy in front.policies):
        return {}
    return _filters(view, front, port, http=False)


def network_filters(view: View, front: Front, port: int) -> list[Message]:
    """For connections that are carried unread: filters, in the order in which they judge. What asks for more than a
    connection shows allows nothing, and denies more."""
    found = []
    for action in ("DENY", "ALLOW"):
        chosen = [one for one in front.policies if _ACTIONS[one.action] == action and not one.dry_run]
        if chosen:
            rules = _rules(view, front, FrontPort(port, Protocol.TCP), action, chosen, http=False)
            found.append(typed(_FILTERS[action], "filters.network.rbac.v3.RBAC", stat_prefix="rbac", rules=rules))
    return found


def _filters(view: View, front: Front, port: FrontPort, *, http: bool) -> Message:
    made: Message = {}
    asking = [(policy, one) for policy in front.policies if http and (one := asked(front, policy)) is not None]
    others = [policy for policy in front.policies if policy not in {one for one, _ in asking}]
    for provider in dict.fromkeys(one for _, one in asking):
        theirs = [policy for policy, one in asking if one == provider]
        fields: Message = {
            "shadow_rules": _rules(view, front, port, "DENY", theirs, http=True, tokens=False),
            "shadow_rules_stat_prefix": match_prefix(provider),
        }
        made[match_filter(provider)] = any_of(_PER_ROUTE, rbac=fields)
    for action, name in _FILTERS.items():
        chosen = [policy for policy in others if _ACTIONS[policy.action] == action]
        enforced = [policy for policy in chosen if not policy.dry_run]
        tried = [policy for policy in chosen if policy.dry_run]
        fields = {}
        if enforced or (action == "DENY" and asking):
            rules = _rules(view, front, port, action, enforced, http=http)
            unasked = _unasked(view, front, port, asking) if action == "DENY" else {}
            fields["rules"] = {**rules, "policies": {**rules["policies"], **unasked}}
        if tried:
            fields["shadow_rules"] = _rules(view, front, port, action, tried, http=http)
            fields["shadow_rules_stat_prefix"] = DRY_RUN.format(action.lower())
        if fields:
            made[name] = any_of(_PER_ROUTE, rbac=fields)
    return made


def _unasked(view: View, front: Front, port: FrontPort, asking: Iterable[tuple[Policy, Provider]]) -> Message:
    """Rules for what should have been asked for, and was not."""
    made: Message = {}
    for policy, provider in asking:
        for name, rule in _rules(view, front, port, "DENY", [policy], http=True, tokens=False)["policies"].items():
            principals = [{"and_ids": {"ids": [one, not_noted(provider)]}} for one in rule["principals"]]
            made[f"{name}-unasked"] = {**rule, "principals": principals}
    return made


def _rules(
    view: View,
    front: Front,
    port: FrontPort,
    action: str,
    policies: Iterable[Policy],
    *,
    http: bool,
    tokens: bool = True,
) -> Message:
    found: Message = {}
    for policy in policies:
        context = Context(
            policy.namespace,
            view.trust_domains,
            front.addresses,
            port.number,
            http,
            tokens,
            view.outside,
            front.unnamed,
        )
        for number, rule in enumerate(policy.rules):
            translated = translate(rule, context, allow=action == "ALLOW")
            if translated is not None:
                found[f"ns[{policy.namespace}]-policy[{policy.name}]-rule[{number}]"] = translated
    return {"action": action, "policies": found}
