"""HTTPRoute: what is read, and every rule that refuses one, with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.objects import HTTPRoute, parse_object
from ambient.kube.routing import (
    BackendRef,
    Cors,
    HeaderEdit,
    Mirror,
    ParentRef,
    PathEdit,
    PathMatch,
    Redirect,
    Retry,
    Rewrite,
    RouteMatch,
    Session,
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
                    {
                        "type": "CORS",
                        "cors": {
                            "allowOrigins": ["https://*.example.com", "https://a.example.com:8443"],
                            "allowMethods": ["GET", "POST"],
                            "allowHeaders": ["x-a", "x-b"],
                            "exposeHeaders": ["x-c"],
                            "maxAge": 60,
                            "allowCredentials": True,
                        },
                    },
                ],
                "backendRefs": [
                    {"name": "web-v1", "port": 80, "weight": 90},
                    {
                        "name": "web-v2",
                        "port": 80,
                        "weight": 10,
                        "filters": [
                            {
                                "type": "RequestHeaderModifier",
                                "requestHeaderModifier": {"set": [{"name": "x-new", "value": "1"}]},
                            }
                        ],
                    },
                ],
                "retry": {"attempts": 3, "codes": [503, 500], "backoff": "20ms"},
                "sessionPersistence": {
                    "sessionName": "sid",
                    "absoluteTimeout": "1h",
                    "cookieConfig": {"lifetimeType": "Permanent"},
                },
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
RULE_AT, SESSION = "spec.rules[0]", "sessionPersistence"
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
        f"{FILTER}.5",
        {"type": "RequestRedirect", "requestRedirect": {}},
        "may not stand beside",
        at="spec.rules[0].filters",
    ),
    Bad(f"{FIRST}.backendRefs.0.port", REMOVE, "is required"),
    Bad(f"{FIRST}.backendRefs.1.filters.0.type", "URLRewrite", "is not one of RequestHeaderModifier, ResponseHeader"),
    Bad(f"{FIRST}.backendRefs.1.filters.0.requestHeaderModifier", REMOVE, "is required"),
    Bad(f"{FIRST}.retry.attempts", 101, "101 is not in range (0..100)"),
    Bad(f"{FIRST}.retry.codes", [200], "200 is not a status of an error (400..599)", at=f"{RULE_AT}.retry.codes[0]"),
    Bad(f"{FIRST}.retry.backoff", "soon", "is not a duration"),
    Bad(f"{FIRST}.sessionPersistence.idleTimeout", "1h", "not supported: nobody remembers"),
    Bad(f"{FIRST}.sessionPersistence.type", "Header", "beside type Header", at=f"{RULE_AT}.{SESSION}.cookieConfig"),
    Bad(f"{FIRST}.sessionPersistence.absoluteTimeout", REMOVE, "needs an absol", at=f"{RULE_AT}.{SESSION}"),
    Bad(f"{FIRST}.sessionPersistence.cookieConfig", REMOVE, "has an end", at=f"{RULE_AT}.{SESSION}.absoluteTimeout"),
    Bad(f"{FIRST}.sessionPersistence.sessionName", "a b", "is not an HTTP header name"),
    Bad(f"{FILTER}.4.cors.allowOrigins.0", "example.com", "is not an origin such as"),
    Bad(f"{FILTER}.4.cors.allowOrigins.0", "https://*.a.b:x", "is not an origin such as"),
    Bad(f"{FILTER}.4.cors.allowMethods.0", "get", "is not one of GET"),
    Bad(f"{FILTER}.4.cors.allowHeaders.0", "a b", "is not an HTTP header name"),
    Bad(f"{FILTER}.4.cors.maxAge", 0, "0 is not in range"),
    Bad(f"{FIRST}.backendRefs.0.weight", -1, "-1 is not in range"),
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
    told = HeaderEdit((("x-new", "1"),))
    assert first.backends == (BackendRef("web-v1", 80, 90), BackendRef("web-v2", 80, 10, request=told))
    assert first.retry == Retry(3, (503, 500), backoff_ms=20)
    assert first.session == Session("sid", ttl_ms=3_600_000)
    below = TextMatch("", r"https://([^./:]+\.)+example\.com", "RegularExpression")
    origins = (below, TextMatch("", "https://a.example.com:8443"))
    assert first.cors == Cors(origins, ("GET", "POST"), ("x-a", "x-b"), ("x-c",), 60, True, forward=False)
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
