"""AuthorizationPolicies as per-route configuration of Envoy's RBAC filters, for HTTP requests and for CONNECTs. Pure.

Order as in Istio: what a DENY matches is refused, then, where there is an ALLOW at all, what none of them matches. What
cannot be said to Envoy never opens anything: in an ALLOW its rule is left out, in a DENY the rest of the rule decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.kube.policies import PolicyRule
from ambient.waypoint.front import Front, FrontPort, Policy, Protocol, View
from ambient.waypoint.rbac_rule import Context, translate
from ambient.waypoint.tunnel import ALLOW_FILTER, AUDIT_FILTER, DENY_FILTER
from ambient.waypoint.typed import Message, any_of

DRY_RUN_PREFIX: Final = "dry_run_"
_FILTERS: Final = {"DENY": DENY_FILTER, "ALLOW": ALLOW_FILTER, "LOG": AUDIT_FILTER}
_ACTIONS: Final = {"ALLOW": "ALLOW", "DENY": "DENY", "AUDIT": "LOG", "CUSTOM": "DENY"}
"""CUSTOM has nobody to ask here, so what it matches is refused."""


def is_layer_4(policy: Policy) -> bool:
    """It asks for nothing that only HTTP has."""
    return all(_plain(rule) for rule in policy.rules)


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


def _filters(view: View, front: Front, port: FrontPort, *, http: bool) -> Message:
    made: Message = {}
    for action, name in _FILTERS.items():
        chosen = [policy for policy in front.policies if _ACTIONS[policy.action] == action]
        enforced = [policy for policy in chosen if not policy.dry_run]
        tried = [policy for policy in chosen if policy.dry_run]
        fields: Message = {}
        if enforced:
            fields["rules"] = _rules(view, front, port, action, enforced, http=http)
        if tried:
            fields["shadow_rules"] = _rules(view, front, port, action, tried, http=http)
            fields["shadow_rules_stat_prefix"] = DRY_RUN_PREFIX
        if fields:
            made[name] = any_of("envoy.extensions.filters.http.rbac.v3.RBACPerRoute", rbac=fields)
    return made


def _rules(
    view: View, front: Front, port: FrontPort, action: str, policies: Iterable[Policy], *, http: bool
) -> Message:
    found: Message = {}
    for policy in policies:
        context = Context(policy.namespace, view.trust_domains, front.addresses, port.number, http)
        for number, rule in enumerate(policy.rules):
            translated = translate(rule, context, allow=action == "ALLOW")
            if translated is not None:
                found[f"ns[{policy.namespace}]-policy[{policy.name}]-rule[{number}]"] = translated
    return {"action": action, "policies": found}
