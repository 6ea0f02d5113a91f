"""Gateway API: HTTPRoute, read whole: a field that is not understood is refused, for it might be one that restricts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ambient.kube import syntax
from ambient.kube.durations import gateway_duration
from ambient.kube.gateways import VERSIONS
from ambient.kube.metadata import Shape
from ambient.kube.rate_limits import limited
from ambient.kube.read import Field, Object
from ambient.kube.route_parts import (
    METHODS,
    cors,
    few,
    header_edit,
    hostname,
    mirror,
    named,
    read_route,
    retry,
    rule_filters,
    session,
    weighted,
)
from ambient.kube.route_syntax import header_name, parameter, plain_path, regular_expression
from ambient.kube.routing import (
    HTTPRoute,
    PathEdit,
    PathMatch,
    Redirect,
    Rewrite,
    RouteMatch,
    RouteRule,
)

SHAPE: Final = Shape(VERSIONS, True, syntax.dns_subdomain, ("spec",), strict=True)

_PATHS: Final = syntax.words("Exact PathPrefix RegularExpression")
_FILTERS: Final[Mapping[str, str]] = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "RequestMirror": "requestMirror",
    "CORS": "cors",
}
_RULE: Final = syntax.words("name matches filters backendRefs timeouts retry sessionPersistence")
_STATUSES: Final = (301, 302, 303, 307, 308)
_MOST_MATCHES: Final = 128


def parse_http_route(top: Object, raw: Mapping[str, Any]) -> HTTPRoute:
    """Raises InvalidInput; every rule has its row in the tests."""
    common, spec, parents = read_route(top, raw, SHAPE)
    hostnames = few(spec, "hostnames", lambda field: field.checked(hostname))
    rules = few(spec, "rules", _rule) if spec.get("rules") is not None else (RouteRule(),)
    if sum(len(one.matches) for one in rules) > _MOST_MATCHES:
        raise spec.need("rules").refuse(f"at most {_MOST_MATCHES} matches in all rules together")
    rules = limited(
        rules, common["annotations"], top.at.what, f"{HTTPRoute.kind}/{common['namespace']}/{common['name']}"
    )
    return HTTPRoute(**common, parents=parents, hostnames=hostnames, rules=rules)


def _rule(field: Field) -> RouteRule:
    entry = field.object(_RULE)
    entry.read("name", lambda f: f.checked(syntax.dns_subdomain), "")
    matches = few(entry, "matches", _match, 64) or (RouteMatch(),)
    made = _filters(entry)
    backends = few(entry, "backendRefs", weighted)
    if made["redirect"] is not None and backends:
        raise entry.need("backendRefs").refuse("may not stand beside a RequestRedirect")
    edits = [one.path for one in (made["redirect"], made["rewrite"]) if one is not None and one.path is not None]
    for edit in edits:
        if edit.kind == "ReplacePrefixMatch" and any(one.path.kind != "PathPrefix" for one in matches):
            raise entry.need("filters").refuse("ReplacePrefixMatch needs a PathPrefix in every match")
    timeouts = entry.read("timeouts", lambda f: f.object(("request", "backendRequest")), None)
    whole = timeouts.read("request", gateway_duration, None) if timeouts else None
    single = timeouts.read("backendRequest", gateway_duration, None) if timeouts else None
    if timeouts is not None and whole and single is not None and (single > whole or not single):
        raise timeouts.need("backendRequest").refuse("longer than the request's own timeout")
    return RouteRule(
        matches=matches,
        backends=backends,
        timeout_ms=whole,
        backend_timeout_ms=single,
        retry=entry.read("retry", retry, None),
        session=entry.read("sessionPersistence", session, None),
        **made,
    )


def _match(field: Field) -> RouteMatch:
    entry = field.object(("path", "headers", "queryParams", "method"))
    return RouteMatch(
        entry.read("path", _path, PathMatch()),
        named(entry, "headers", header_name),
        named(entry, "queryParams", parameter),
        entry.read("method", lambda f: f.one_of(METHODS), ""),
    )


def _path(field: Field) -> PathMatch:
    entry = field.object(("type", "value"))
    kind = entry.read("type", lambda f: f.one_of(_PATHS), "PathPrefix")
    check = regular_expression if kind == "RegularExpression" else plain_path
    return PathMatch(kind, entry.read("value", lambda f: f.checked(check), "/"))


def _filters(entry: Object) -> dict[str, Any]:
    """What the filters of a rule say, as keyword arguments of it."""
    made: dict[str, Any] = {"redirect": None, "rewrite": None, "mirrors": (), "cors": None}
    for kind, value in rule_filters(entry, _FILTERS):
        match kind:
            case "RequestHeaderModifier":
                made["request"] = header_edit(value)
            case "ResponseHeaderModifier":
                made["response"] = header_edit(value)
            case "RequestRedirect":
                made["redirect"] = _redirect(value)
            case "URLRewrite":
                made["rewrite"] = _rewrite(value)
            case "CORS":
                made["cors"] = cors(value)
            case _:
                made["mirrors"] = (*made["mirrors"], mirror(value))
    if made["redirect"] is not None and made["rewrite"] is not None:
        raise entry.need("filters").refuse("URLRewrite may not stand beside RequestRedirect")
    return made


def _redirect(field: Field) -> Redirect:
    entry = field.object(("scheme", "hostname", "path", "port", "statusCode"))
    status = entry.integer("statusCode", 302, 300, 399)
    if status not in _STATUSES:
        raise entry.need("statusCode").refuse(f"{status} is not one of {', '.join(map(str, _STATUSES))}")
    return Redirect(
        entry.read("scheme", lambda f: f.one_of(("http", "https")), ""),
        entry.read("hostname", lambda f: f.checked(syntax.dns_subdomain), ""),
        entry.read("port", Field.port, 0),
        entry.read("path", _path_edit, None),
        status,
    )


def _rewrite(field: Field) -> Rewrite:
    entry = field.object(("hostname", "path"))
    host = entry.read("hostname", lambda f: f.checked(syntax.dns_subdomain), "")
    return Rewrite(host, entry.read("path", _path_edit, None))


def _path_edit(field: Field) -> PathEdit:
    entry = field.object(("type", "replaceFullPath", "replacePrefixMatch"))
    kind = entry.need("type").one_of(("ReplaceFullPath", "ReplacePrefixMatch"))
    name, other = ("replaceFullPath", "replacePrefixMatch")[:: 1 if kind == "ReplaceFullPath" else -1]
    if entry.present(other):
        raise entry.need(other).refuse(f"may not stand in a path of type {kind}")
    return PathEdit(kind, entry.need(name).checked(lambda text: plain_path(text or "/")) or "/")
