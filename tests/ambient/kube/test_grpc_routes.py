"""GRPCRoute: methods are paths; every rule that refuses one, with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.objects import GRPCRoute, parse_object
from ambient.kube.routing import BackendRef, HeaderEdit, Mirror, PathMatch, RouteMatch, TextMatch
from tests.support.refusals import REMOVE, Bad, changed, refused

ROUTE: dict[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GRPCRoute",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
        "rules": [
            {
                "matches": [
                    {
                        "method": {"service": "shop.v1.Cart", "method": "Add"},
                        "headers": [{"name": "x-team", "value": "red"}],
                    }
                ],
                "filters": [
                    {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "1"}]}},
                    {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copy", "port": 80}}},
                ],
                "backendRefs": [{"name": "web-v1", "port": 80, "weight": 9}, {"name": "web-v2", "port": 80}],
            }
        ],
    },
}
METHOD = "spec.rules.0.matches.0.method"
RULES = [
    Bad("spec.parentRefs.0.name", REMOVE, "is required"),
    Bad("spec.hostnames", ["a b"], "is not a DNS name", at="spec.hostnames[0]"),
    Bad("spec.rules.0.timeouts", {}, "unknown field"),
    Bad("spec.rules", [{}] * 17, "at most 16 entries"),
    Bad("spec.rules", [{"matches": [{}] * 43}] * 3, "at most 128 matches in all rules together"),
    Bad(METHOD, {}, "needs a service or a method"),
    Bad(f"{METHOD}.type", "Prefix", "'Prefix' is not one of Exact, RegularExpression"),
    Bad(f"{METHOD}.service", "shop/Cart", "is not the name of a gRPC service"),
    Bad(f"{METHOD}.service", "shop..Cart", "is not the name of a gRPC service"),
    Bad(f"{METHOD}.method", "Add/x", "is not the name of a gRPC method"),
    Bad(
        METHOD,
        {"type": "RegularExpression", "method": "("},
        "is not a regular expression",
        at="spec.rules[0].matches[0].method.method",
    ),
    Bad("spec.rules.0.filters.0.type", "URLRewrite", "is not one of RequestHeaderModifier"),
    Bad("spec.rules.0.filters.0.requestHeaderModifier", REMOVE, "is required"),
    Bad("spec.rules.0.backendRefs.0.port", REMOVE, "is required"),
]


@pytest.mark.parametrize("bad", RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[-60:])
def test_a_broken_rule_is_refused(bad: Bad) -> None:
    refused(ROUTE, bad)


def test_what_is_read() -> None:
    found = parse_object(ROUTE, "x")
    assert isinstance(found, GRPCRoute)
    (rule,) = found.rules
    path = PathMatch("Exact", "/shop.v1.Cart/Add")
    assert rule.matches == (RouteMatch(path, (TextMatch("x-team", "red"),)),)
    assert rule.backends == (BackendRef("web-v1", 80, 9), BackendRef("web-v2", 80))
    assert (rule.request, rule.mirrors) == (HeaderEdit((("a", "1"),)), (Mirror(BackendRef("copy", 80)),))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ({"service": "a.B"}, PathMatch("PathPrefix", "/a.B")),
        ({"method": "Do"}, PathMatch("RegularExpression", "/[^/]+/Do")),
        (
            {"type": "RegularExpression", "service": "a|b", "method": "D.*"},
            PathMatch("RegularExpression", "/(?:a|b)/(?:D.*)"),
        ),
        ({"type": "RegularExpression", "method": "D.*"}, PathMatch("RegularExpression", "/(?:[^/]+)/(?:D.*)")),
    ],
)
def test_a_method_is_a_path(method: dict[str, str], path: PathMatch) -> None:
    found = parse_object(changed(ROUTE, METHOD, method), "x")
    assert isinstance(found, GRPCRoute)
    assert found.rules[0].matches[0].path == path
