"""Gateway API: GRPCRoute, read whole into the rules that HTTPRoutes have: a method is a path, metadata are headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ambient.kube import syntax
from ambient.kube.metadata import Shape
from ambient.kube.rate_limits import limited
from ambient.kube.read import Field, Object
from ambient.kube.route_parts import (
    GROUP,
    few,
    header_edit,
    hostname,
    mirror,
    named,
    read_route,
    rule_filters,
    session,
    weighted,
)
from ambient.kube.route_syntax import header_name, regular_expression
from ambient.kube.routing import GRPCRoute, PathMatch, RouteMatch, RouteRule

SHAPE: Final = Shape((f"{GROUP}/v1",), True, syntax.dns_subdomain, ("spec",), strict=True)

_RULE: Final = syntax.words("name matches filters backendRefs sessionPersistence")
_FILTERS: Final[Mapping[str, str]] = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestMirror": "requestMirror",
}
_SERVICE: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*")
_METHOD: Final = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_MOST_MATCHES: Final = 128


def parse_grpc_route(top: Object, raw: Mapping[str, Any]) -> GRPCRoute:
    """Raises InvalidInput; every rule has its row in the tests."""
    common, spec, parents = read_route(top, raw, SHAPE)
    hostnames = few(spec, "hostnames", lambda field: field.checked(hostname))
    rules = few(spec, "rules", _rule) if spec.get("rules") is not None else (RouteRule(),)
    if sum(len(one.matches) for one in rules) > _MOST_MATCHES:
        raise spec.need("rules").refuse(f"at most {_MOST_MATCHES} matches in all rules together")
    rules = limited(
        rules, common["annotations"], top.at.what, f"{GRPCRoute.kind}/{common['namespace']}/{common['name']}"
    )
    return GRPCRoute(**common, parents=parents, hostnames=hostnames, rules=rules)


def _rule(field: Field) -> RouteRule:
    entry = field.object(_RULE)
    entry.read("name", lambda f: f.checked(syntax.dns_subdomain), "")
    made: dict[str, Any] = {"mirrors": ()}
    for kind, value in rule_filters(entry, _FILTERS):
        match kind:
            case "RequestHeaderModifier":
                made["request"] = header_edit(value)
            case "ResponseHeaderModifier":
                made["response"] = header_edit(value)
            case _:
                made["mirrors"] = (*made["mirrors"], mirror(value))
    return RouteRule(
        matches=few(entry, "matches", _match, 64) or (RouteMatch(),),
        backends=few(entry, "backendRefs", weighted),
        session=entry.read("sessionPersistence", session, None),
        **made,
    )


def _match(field: Field) -> RouteMatch:
    entry = field.object(("method", "headers"))
    return RouteMatch(entry.read("method", _method, PathMatch()), named(entry, "headers", header_name))


def _method(field: Field) -> PathMatch:
    entry = field.object(("type", "service", "method"))
    kind = entry.read("type", lambda f: f.one_of(("Exact", "RegularExpression")), "Exact")
    if not entry.present("service", "method"):
        raise field.refuse("needs a service or a method")
    if kind == "Exact":
        service = entry.read("service", lambda f: f.checked(_service_name), "")
        method = entry.read("method", lambda f: f.checked(_method_name), "")
        if service and method:
            return PathMatch("Exact", f"/{service}/{method}")
        return PathMatch("PathPrefix", f"/{service}") if service else PathMatch("RegularExpression", f"/[^/]+/{method}")
    service = entry.read("service", lambda f: f.checked(regular_expression), "[^/]+")
    method = entry.read("method", lambda f: f.checked(regular_expression), "[^/]+")
    return PathMatch("RegularExpression", f"/(?:{service})/(?:{method})")


def _service_name(value: str) -> str:
    good = len(value) <= 1024 and _SERVICE.fullmatch(value)
    return "" if good else f"{value[:60]!r} is not the name of a gRPC service"


def _method_name(value: str) -> str:
    good = len(value) <= 1024 and _METHOD.fullmatch(value)
    return "" if good else f"{value[:60]!r} is not the name of a gRPC method"
