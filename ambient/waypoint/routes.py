"""Routes of requests as Envoy's: what is changed, and where it goes. Pure.

Nothing here judges a request: that stands on the virtual host, in force for every route.
"""

from __future__ import annotations

import re
from typing import Final

from ambient.kube.routing import HeaderEdit, PathEdit, PathMatch, Redirect, Retry, RouteRule
from ambient.waypoint.balance import hash_policies
from ambient.waypoint.front import Destination, Front, Route
from ambient.waypoint.preflight import preflights
from ambient.waypoint.route_filters import of_route
from ambient.waypoint.route_match import request_match
from ambient.waypoint.typed import Message, seconds, typed, verbatim

NOWHERE: Final = "nowhere"
"""A cluster that there is none of: its share of the requests gets a 500."""
_STATUSES: Final = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
_PORTS: Final = {"http": 80, "https": 443}
_USUAL: Final = Retry(2, on=("connect-failure", "refused-stream", "unavailable", "cancelled"))
_PREVIOUS: Final = "retry.host.previous_hosts.v3.PreviousHostsPredicate"


def cluster_name(hostname: str, port: int, kind: str, subset: str = "") -> str:
    """`kind` is http or tcp; `subset` "": all endpoints."""
    return f"inbound-vip|{port}|{kind}{f'/{subset}' if subset else ''}|{hostname}"


def routes(front: Front, port: int) -> list[Message]:
    """Those of a port; without any of its own each request goes to the service itself."""
    found = [each for one in front.routes if one.port == port for each in made_of(one)]
    name = cluster_name(front.hostname, port, "http")
    hashed = [one.traffic.balancer.hash_by for one in front.ports if one.number == port and one.traffic.balancer]
    action = {"cluster": name, "timeout": "0s", **hash_policies(hashed), **retries()}
    return found or [{"name": "default", "match": {"prefix": "/"}, "route": action}]


def made_of(route: Route) -> tuple[Message, ...]:
    """Envoy's routes for one of ours."""
    return (*preflights(route), _route(route))


def retries(asked: Retry | None = None) -> Message:
    """What is asked for, else Istio's: twice, only what has certainly reached no application or is said to be worth
    it."""
    asked = asked or _USUAL
    reasons = [*(asked.on or (() if asked.codes else _USUAL.on)), *(("retriable-status-codes",) if asked.codes else ())]
    if asked.codes and not asked.on:
        reasons = [*_USUAL.on, *reasons]
    policy: Message = {
        "retry_on": ",".join(dict.fromkeys(reasons)),
        "num_retries": asked.attempts,
        "retry_host_predicate": [typed("envoy.retry_host_predicates.previous_hosts", _PREVIOUS)],
        "host_selection_retry_max_attempts": "5",
    }
    if asked.codes:
        policy["retriable_status_codes"] = list(asked.codes)
    if asked.backoff_ms is not None:
        base = max(asked.backoff_ms, 1)
        policy["retry_back_off"] = {"base_interval": seconds(base), "max_interval": seconds(10 * base)}
    if asked.per_try_ms:
        policy["per_try_timeout"] = seconds(asked.per_try_ms)
    return {"retry_policy": policy}


def _route(route: Route) -> Message:
    rule = route.rule
    made: Message = {"name": route.name, "match": request_match(route.match), **of_route(rule)}
    _edit(made, "request", rule.request)
    _edit(made, "response", rule.response)
    if rule.redirect is not None:
        return {**made, "redirect": _redirect(rule.redirect, route.match.path)}
    if rule.answer is not None:
        body = {"body": {"inline_string": rule.answer.body}} if rule.answer.body else {}
        return {**made, "direct_response": {"status": rule.answer.status, **body}}
    chosen = [one for one in route.destinations if one.weight]
    if not any(one.hostname for one in chosen):
        return {**made, "direct_response": {"status": 500}}
    return {**made, "route": _action(route, rule, chosen)}


def _action(route: Route, rule: RouteRule, chosen: list[Destination]) -> Message:
    action: Message = {"cluster_not_found_response_code": "INTERNAL_SERVER_ERROR", **retries(rule.retry)}
    if len(chosen) == 1 and not _edits(chosen[0]):
        action["cluster"] = _cluster(chosen[0])
    else:
        action["weighted_clusters"] = {"clusters": [_weighted(one) for one in chosen]}
    action["timeout"] = seconds(rule.timeout_ms or 0)
    action.update(hash_policies(one.hash_by for one in chosen))
    if rule.backend_timeout_ms:
        action["retry_policy"]["per_try_timeout"] = seconds(rule.backend_timeout_ms)
    if rule.rewrite is not None:
        if rule.rewrite.hostname:
            action["host_rewrite_literal"] = rule.rewrite.hostname
        if rule.rewrite.path is not None:
            action.update(_rewritten(rule.rewrite.path, route.match.path))
    if route.mirrors:
        action["request_mirror_policies"] = [_mirror(one) for one in route.mirrors]
    return action


def _edits(one: Destination) -> Message:
    made: Message = {}
    _edit(made, "request", one.request)
    _edit(made, "response", one.response)
    return made


def _weighted(one: Destination) -> Message:
    return {"name": _cluster(one), "weight": one.weight, **_edits(one)}


def _cluster(one: Destination) -> str:
    return cluster_name(one.hostname, one.port, "http", one.subset) if one.hostname else NOWHERE


def _mirror(one: Destination) -> Message:
    share = {"numerator": one.weight, "denominator": "MILLION"}
    return {
        "cluster": _cluster(one),
        "runtime_fraction": {"default_value": share},
        "disable_shadow_host_suffix_append": True,
    }


def _edit(made: Message, side: str, edit: HeaderEdit) -> None:
    put = [(*one, "OVERWRITE_IF_EXISTS_OR_ADD") for one in edit.set]
    put += [(*one, "APPEND_IF_EXISTS_OR_ADD") for one in edit.add]
    if put:
        made[f"{side}_headers_to_add"] = [_header(name, value, how) for name, value, how in put]
    if edit.remove:
        made[f"{side}_headers_to_remove"] = list(edit.remove)


def _header(name: str, value: str, how: str) -> Message:
    return {
        "header": {"key": name, "value": verbatim(value)},
        "append_action": how,
        "keep_empty_value": True,
    }


def _redirect(redirect: Redirect, path: PathMatch) -> Message:
    made: Message = {"response_code": _STATUSES[redirect.status]}
    if redirect.scheme:
        made["scheme_redirect"] = redirect.scheme
    if redirect.hostname:
        made["host_redirect"] = redirect.hostname
    usual = redirect.hostname and redirect.port == _PORTS.get(redirect.scheme or "http")
    if redirect.port and not usual:
        made["port_redirect"] = redirect.port
    if redirect.path is not None:
        if redirect.path.kind == "ReplaceFullPath":
            made["path_redirect"] = redirect.path.value
        else:
            made.update(_rewritten(redirect.path, path))
    return made


def _rewritten(edit: PathEdit, path: PathMatch) -> Message:
    if edit.kind == "RegularExpression":
        return _replace(edit.pattern, edit.value)
    if edit.kind == "ReplaceFullPath" or path.kind == "RegularExpression":
        return _replace("^/.*", edit.value)
    if path.kind != "PathPrefix":
        return {"prefix_rewrite": edit.value}
    before, after = path.value.rstrip("/"), edit.value.rstrip("/")
    if not after:
        return _replace(f"^{re.escape(before)}/*", "/")
    return {"prefix_rewrite": after if before else f"{after}/"}


def _replace(pattern: str, by: str) -> Message:
    return {"regex_rewrite": {"pattern": {"regex": pattern}, "substitution": by}}
