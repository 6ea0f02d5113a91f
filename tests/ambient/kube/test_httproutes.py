"""HTTPRoute: what is read, and every rule that refuses one, with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.httproutes import plain_path, regular_expression
from ambient.kube.objects import HTTPRoute, parse_object
from ambient.kube.routing import (
    BackendRef,
    HeaderEdit,
    Mirror,
    ParentRef,
    PathEdit,
    PathMatch,
    Redirect,
    Rewrite,
    RouteMatch,
    TextMatch,
)
from tests.support.refusals import REMOVE, Bad, refused

ROUTE: dict[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
        "rules": [
            {
                "matches": [
                    {
                        "path": {"type": "PathPrefix", "value": "/v1"},
                        "headers": [
                            {"name": "X-Team", "value": "red"},
                            {"name": "x-team", "value": "blue"},
                            {"type": "RegularExpression", "name": "x-n", "value": "[0-9]+"},
                        ],
                        "queryParams": [{"name": "q", "value": "1"}],
                        "method": "GET",
                    }
                ],
                "filters": [
                    {
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {
                            "set": [{"name": "a", "value": "1"}],
                            "add": [{"name": "b", "value": "2"}],
                            "remove": ["c"],
                        },
                    },
                    {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["server"]}},
                    {
                        "type": "URLRewrite",
                        "urlRewrite": {
                            "hostname": "h.example.com",
                            "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2"},
                        },
                    },
                    {
                        "type": "RequestMirror",
                        "requestMirror": {"backendRef": {"name": "copy", "port": 80}, "percent": 5},
                    },
                ],
                "backendRefs": [
                    {"name": "web-v1", "port": 80, "weight": 90},
                    {"name": "web-v2", "port": 80, "weight": 10},
                ],
                "timeouts": {"request": "10s", "backendRequest": "1s500ms"},
            },
            {
                "matches": [{"path": {"type": "Exact", "value": "/old"}}],
                "filters": [
                    {
                        "type": "RequestRedirect",
                        "requestRedirect": {
                            "scheme": "https",
                            "hostname": "x.example.com",
                            "port": 8443,
                            "statusCode": 301,
                            "path": {"type": "ReplaceFullPath", "replaceFullPath": "/new"},
                        },
                    }
                ],
            },
        ],
    },
}
FIRST = "spec.rules.0"
FILTER = f"{FIRST}.filters"
REDIRECT = "spec.rules.1.filters.0.requestRedirect"
RULES = [
    Bad("spec", REMOVE, "is required"),
    Bad("spec.rule", [], "unknown field"),
    Bad("spec.parentRefs.0.section", "a", "unknown field"),
    Bad("spec.parentRefs.0.sectionName", "a", "a Service has no sections: give its port"),
    Bad("spec.parentRefs.0.port", 0, "0 is not a port (1..65535)"),
    Bad("spec.parentRefs.0.name", REMOVE, "is required"),
    Bad("spec.hostnames", ["a b"], "is not a DNS name", at="spec.hostnames[0]"),
    Bad("spec.rules", [{}] * 17, "at most 16 entries"),
    Bad(f"{FIRST}.retry", {"attempts": 2}, "unknown field"),
    Bad(f"{FIRST}.sessionPersistence", {}, "unknown field"),
    Bad(f"{FIRST}.matches.0.path.type", "Glob", "'Glob' is not one of Exact, PathPrefix, RegularExpression"),
    Bad(f"{FIRST}.matches.0.path.value", "v1", "is not a path: it begins with /"),
    Bad(f"{FIRST}.matches.0.path.value", "/a/../b", "a path may not hold '/../'"),
    Bad(f"{FIRST}.matches.0.method", "get", "'get' is not one of GET"),
    Bad(f"{FIRST}.matches.0.headers.0.name", "a b", "is not an HTTP header name"),
    Bad(f"{FIRST}.matches.0.headers.0.value", REMOVE, "is required"),
    Bad(f"{FIRST}.matches.0.headers.2.value", "(", "is not a regular expression"),
    Bad(f"{FIRST}.matches.0.queryParams.0.name", "", "needs a name"),
    Bad(f"{FIRST}.matches.0.queryParams.0.name", "q" * 257, "at most 256 characters"),
    Bad(f"{FIRST}.matches.0.headers.0.name", "x" * 257, "at most 256 characters"),
    Bad(f"{FIRST}.matches", [{}] * 129, "at most 64 entries"),
    Bad("spec.rules", [{"matches": [{}] * 43}] * 3, "at most 128 matches in all rules together"),
    Bad(f"{FILTER}.0.requestHeaderModifier.set.0.value", "v" * 4097, "at most 4096 characters"),
    Bad(f"{FILTER}.0.type", "ExtensionRef", "is not one of RequestHeaderModifier"),
    Bad(f"{FILTER}.0.requestHeaderModifier", REMOVE, "is required"),
    Bad(f"{FILTER}.0.requestMirror", {}, "may not stand in a filter of type RequestHeaderModifier"),
    Bad(f"{FILTER}.0.requestHeaderModifier.set.0.name", "Host", "may not be changed: use URLRewrite.hostname"),
    Bad(f"{FILTER}.0.requestHeaderModifier.set.0.name", ":path", "is not an HTTP header name"),
    Bad(f"{FILTER}.0.requestHeaderModifier.set.0.value", "a\r\nb: c", "a header value may not hold line breaks"),
    Bad(f"{FILTER}.1", {"type": "RequestHeaderModifier", "requestHeaderModifier": {}}, "a second RequestHeaderM"),
    Bad(f"{FILTER}.2.urlRewrite.path.replaceFullPath", "/x", "may not stand in a path of type ReplacePrefixMatch"),
    Bad(f"{FIRST}.matches.0.path.type", "Exact", "needs a PathPrefix in every match", at="spec.rules[0].filters"),
    Bad(f"{FILTER}.3.requestMirror.fraction", {"numerator": 1}, "may not stand beside percent"),
    Bad(f"{FILTER}.3.requestMirror.percent", 101, "101 is not in range (0..100)"),
    Bad(
        f"{FILTER}.4",
        {"type": "RequestRedirect", "requestRedirect": {}},
        "may not stand beside",
        at="spec.rules[0].filters",
    ),
    Bad(f"{FIRST}.backendRefs.0.port", REMOVE, "is required"),
    Bad(f"{FIRST}.backendRefs.0.weight", -1, "-1 is not in range"),
    Bad(f"{FIRST}.backendRefs.0.filters", [{}], "filters of a backend are not supported"),
    Bad(f"{FIRST}.timeouts.request", "10", "'10' is not a duration"),
    Bad(f"{FIRST}.timeouts.backendRequest", "11s", "longer than the request's own timeout"),
    Bad(f"{REDIRECT}.statusCode", 304, "304 is not one of 301, 302, 303, 307, 308"),
    Bad(f"{REDIRECT}.scheme", "ftp", "'ftp' is not one of http, https"),
    Bad(
        "spec.rules.1.backendRefs",
        [{"name": "a", "port": 1}],
        "may not stand beside a RequestRedirect",
    ),
]


def test_what_is_read() -> None:
    found = parse_object(ROUTE, "x")
    assert isinstance(found, HTTPRoute)
    assert found.parents == (ParentRef("", "Service", "web", "", 80),)
    first, second = found.rules
    headers = (TextMatch("X-Team", "red"), TextMatch("x-n", "[0-9]+", "RegularExpression"))
    assert first.matches == (RouteMatch(PathMatch("PathPrefix", "/v1"), headers, (TextMatch("q", "1"),), "GET"),)
    assert first.backends == (BackendRef("web-v1", 80, 90), BackendRef("web-v2", 80, 10))
    assert first.request == HeaderEdit((("a", "1"),), (("b", "2"),), ("c",))
    assert first.response == HeaderEdit(remove=("server",))
    assert first.rewrite == Rewrite("h.example.com", PathEdit("ReplacePrefixMatch", "/v2"))
    assert first.mirrors == (Mirror(BackendRef("copy", 80), 50_000),)
    assert (first.timeout_ms, first.backend_timeout_ms) == (10_000, 1500)
    path = PathEdit("ReplaceFullPath", "/new")
    assert second.redirect == Redirect("https", "x.example.com", 8443, path, 301)


@pytest.mark.parametrize("bad", RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[-60:])
def test_a_broken_rule_is_refused(bad: Bad) -> None:
    refused(ROUTE, bad)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        "(?=a)",
        "(?i)a",
        "(?P<n>a)",
        "a*+",
        r"(a)\1",
        r"\bx",
        "[[:alpha:]]",
        "a{1001}",
        "(a{40}){40}",
        f"({'a' * 900}){{900}}",
    ],
)
def test_an_expression_that_envoy_may_not_take_is_refused(text: str) -> None:
    assert regular_expression(text)


@pytest.mark.parametrize(
    "text", ["/a.*", "(?:a|b)+", r"/v\d{1,3}/[^/]+", "^x$", "a+?", r"\/x\.y", r"(?:\d{1,3}\.){3}\d{1,3}"]
)
def test_an_expression_that_envoy_takes_is_taken(text: str) -> None:
    assert regular_expression(text) == ""


@pytest.mark.parametrize("text", ["/a//b", "/a/./b", "/a/..", "/a%2Fb", "/a%zz", "/a?b", "/a#b", "a", "/a b", "/a\\b"])
def test_a_path_that_no_plain_request_has_is_refused(text: str) -> None:
    assert plain_path(text)
    assert plain_path("/a%20b/c.d") == ""
