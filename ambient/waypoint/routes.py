"""HTTPRoutes as Envoy's routes: what is matched, what is changed, where it goes. Pure.

Nothing here judges a request: that stands on the virtual host, in force for every route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ambient.kube.routing import HeaderEdit, PathEdit, PathMatch, Redirect, RouteMatch, RouteRule, TextMatch
from ambient.waypoint.front import Destination, Front, Route
from ambient.waypoint.typed import Message, typed

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
_PREVIOUS: Final = "retry.host.previous_hosts.v3.PreviousHostsPredicate"


def cluster_name(hostname: str, port: int, kind: str) -> str:
    """`kind` is http or tcp."""
    return f"inbound-vip|{port}|{kind}|{hostname}"


def routes(front: Front, port: int) -> list[Message]:
    """Those of a port; without any HTTPRoute each request goes to the service itself."""
    found = [_route(one) for one in front.routes if one.port == port]
    name = cluster_name(front.hostname, port, "http")
    plain = {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s", **retries()}}
    return found or [plain]


def retries() -> Message:
    """Istio's: twice, only what has certainly reached no application or is said to be worth it."""
    return {
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,unavailable,cancelled",
            "num_retries": 2,
            "retry_host_predicate": [
                typed("envoy.retry_host_predicates.previous_hosts", _PREVIOUS),
            ],
            "host_selection_retry_max_attempts": "5",
        }
    }


def _route(route: Route) -> Message:
    rule = route.rule
    made: Message = {"name": route.name, "match": _match(route.match)}
    _edit(made, "request", rule.request)
    _edit(made, "response", rule.response)
    if rule.redirect is not None:
        return {**made, "redirect": _redirect(rule.redirect, route.match.path)}
    chosen = [one for one in route.destinations if one.weight]
    if not any(one.hostname for one in chosen):
        return {**made, "direct_response": {"status": 500}}
    return {**made, "route": _action(route, rule, chosen)}


def _action(route: Route, rule: RouteRule, chosen: list[Destination]) -> Message:
    action: Message = {"cluster_not_found_response_code": "INTERNAL_SERVER_ERROR", **retries()}
    if len(chosen) == 1:
        action["cluster"] = _cluster(chosen[0])
    else:
        action["weighted_clusters"] = {"clusters": [{"name": _cluster(one), "weight": one.weight} for one in chosen]}
    action["timeout"] = _seconds(rule.timeout_ms or 0)
    if rule.backend_timeout_ms:
        action["retry_policy"]["per_try_timeout"] = _seconds(rule.backend_timeout_ms)
    if rule.rewrite is not None:
        if rule.rewrite.hostname:
            action["host_rewrite_literal"] = rule.rewrite.hostname
        if rule.rewrite.path is not None:
            action.update(_rewritten(rule.rewrite.path, route.match.path))
    if route.mirrors:
        action["request_mirror_policies"] = [_mirror(one) for one in route.mirrors]
    return action


def _cluster(destination: Destination) -> str:
    return cluster_name(destination.hostname, destination.port, "http") if destination.hostname else NOWHERE


def _mirror(one: Destination) -> Message:
    share = {"numerator": one.weight, "denominator": "MILLION"}
    return {
        "cluster": _cluster(one),
        "runtime_fraction": {"default_value": share},
        "disable_shadow_host_suffix_append": True,
    }


def _match(match: RouteMatch) -> Message:
    made = _path(match.path)
    headers = [_text(one) for one in match.headers]
    if match.method:
        headers.append({"name": ":method", "string_match": {"exact": match.method}})
    if headers:
        made["headers"] = headers
    if match.query:
        made["query_parameters"] = [_text(one) for one in match.query]
    return made


def _path(path: PathMatch) -> Message:
    match path.kind:
        case "Exact":
            return {"path": path.value}
        case "RegularExpression":
            return {"safe_regex": {"regex": path.value}}
    prefix = path.value.rstrip("/")
    return {"path_separated_prefix": prefix} if prefix else {"prefix": "/"}


def _text(match: TextMatch) -> Message:
    how: Message = {"safe_regex": {"regex": match.value}} if match.how != "Exact" else {"exact": match.value}
    return {"name": match.name, "string_match": how}


def _edit(made: Message, side: str, edit: HeaderEdit) -> None:
    put = [(*one, "OVERWRITE_IF_EXISTS_OR_ADD") for one in edit.set]
    put += [(*one, "APPEND_IF_EXISTS_OR_ADD") for one in edit.add]
    if put:
        made[f"{side}_headers_to_add"] = [_header(name, value, how) for name, value, how in put]
    if edit.remove:
        made[f"{side}_headers_to_remove"] = list(edit.remove)


def _header(name: str, value: str, how: str) -> Message:
    # Envoy reads values as formats: a % of the user's is doubled, so it stays one and reads nothing of the proxy's.
    return {
        "header": {"key": name, "value": value.replace("%", "%%")},
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
    if edit.kind == "ReplaceFullPath":
        return _replace("^/.*", edit.value)
    before, after = path.value.rstrip("/"), edit.value.rstrip("/")
    if not after:
        return _replace(f"^{re.escape(before)}/*", "/")
    return {"prefix_rewrite": after if before else f"{after}/"}


def _replace(pattern: str, by: str) -> Message:
    return {"regex_rewrite": {"pattern": {"regex": pattern}, "substitution": by}}


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".") + "s"


def ordered(found: Iterable[Route], age: dict[str, tuple[str, str]]) -> list[Route]:
    """By the Gateway API's precedence: the more exact path, a method, more headers, more parameters, the older object
    (`age` by the route's name), then as written."""
    return sorted(found, key=lambda one: (_rank(one.match), age[one.name]))


def _rank(match: RouteMatch) -> tuple[int, int, int, int, int]:
    path = match.path
    kind = {"Exact": 0, "PathPrefix": 1, "RegularExpression": 2}[path.kind]
    if path.kind == "PathPrefix" and path.value == "/":
        kind = 3  # it fits everything, so an expression is the more exact
    length = len(path.value.rstrip("/")) if path.kind == "PathPrefix" else 0
    return kind, -length, 0 if match.method else 1, -len(match.headers), -len(match.query)
