"""VirtualService: what is read, and every rule that refuses one, with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.objects import VirtualService, parse_object
from ambient.kube.routing import (
    Answer,
    BackendRef,
    Cors,
    Fault,
    HeaderEdit,
    Mirror,
    PathEdit,
    PathMatch,
    Redirect,
    Retry,
    Rewrite,
    RouteMatch,
    StreamRule,
    TextMatch,
)
from tests.support.refusals import REMOVE, Bad, changed, refused

VIRTUAL: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "hosts": ["web", "*.example.com"],
        "exportTo": ["."],
        "http": [
            {
                "name": "first",
                "match": [
                    {
                        "uri": {"prefix": "/v1"},
                        "headers": {"x-team": {"exact": "red"}, "x-any": {}},
                        "withoutHeaders": {"x-not": {"regex": "a.*"}},
                        "queryParams": {"q": {"prefix": "1"}},
                        "method": {"exact": "GET"},
                        "authority": {"prefix": "web."},
                        "scheme": {"exact": "http"},
                        "port": 80,
                        "ignoreUriCase": True,
                        "sourceNamespace": "edge",
                    },
                    {"gateways": ["istio-system/ingress"]},
                ],
                "route": [
                    {
                        "destination": {"host": "web", "subset": "v1", "port": {"number": 80}},
                        "weight": 90,
                        "headers": {"request": {"set": {"x-subset": "v1"}}},
                    },
                    {"destination": {"host": "WEB-v2.shop.svc.cluster.local"}, "weight": 10},
                ],
                "rewrite": {"uri": "/v2", "authority": "inner"},
                "timeout": "1.5s",
                "retries": {
                    "attempts": 3,
                    "perTryTimeout": "0.5s",
                    "retryOn": "connect-failure,503, 504",
                    "backoff": "25ms",
                },
                "fault": {
                    "delay": {"fixedDelay": "1s", "percentage": {"value": 0.5}},
                    "abort": {"httpStatus": 503, "percentage": {"value": 1}},
                },
                "mirror": {"host": "copy"},
                "mirrorPercentage": {"value": 5},
                "corsPolicy": {
                    "allowOrigins": [{"exact": "https://a.b"}, {"regex": "https://.*"}, {"prefix": "http:"}],
                    "allowMethods": ["GET"],
                    "allowHeaders": ["x-a"],
                    "exposeHeaders": ["x-b"],
                    "maxAge": "1m",
                    "allowCredentials": True,
                    "unmatchedPreflights": "IGNORE",
                },
                "headers": {"request": {"add": {"x-a": "1"}, "remove": ["x-b"]}, "response": {"set": {"x-c": "2"}}},
            },
            {"match": [{"uri": {"exact": "/old"}}], "redirect": {"uri": "/new", "authority": "x:8080", "port": 1}},
            {"match": [{"uri": {"regex": "/[0-9]+"}}], "directResponse": {"status": 418, "body": {"string": "tea"}}},
            {
                "rewrite": {"uriRegexRewrite": {"match": "^/(a)", "rewrite": r"/\1"}},
                "route": [{"destination": {"host": "web"}}],
            },
        ],
        "tls": [
            {
                "match": [{"sniHosts": ["a.example.com", "*.b.example.com"], "port": 443}],
                "route": [{"destination": {"host": "web"}}],
            }
        ],
        "tcp": [{"match": [{"port": 9000}], "route": [{"destination": {"host": "web", "subset": "v2"}, "weight": 7}]}],
    },
}
FIRST = "spec.http.0"
MANY = [{"destination": {"host": f"web-{number}"}, "weight": 1} for number in range(64)]
COPIES = [{"destination": {"host": "copy"}}]
SNI = {"sniHosts": ["a.example.com"]}
MATCH = f"{FIRST}.match.0"
AT = "spec.http[0]"
RULES = [
    Bad("spec", REMOVE, "is required"),
    Bad("spec.host", ["a"], "unknown field"),
    Bad("spec.hosts.0", "a b", "is not a DNS name"),
    Bad("spec", {"hosts": ["a"]}, "needs at least one of http, tls and tcp"),
    Bad(f"{FIRST}.delegate", {"name": "x"}, "unknown field"),
    Bad(f"{FIRST}.redirect", {"uri": "/x"}, "needs exactly one of route, redirect and directResponse", at=AT),
    Bad("spec.http.1.redirect", REMOVE, "needs exactly one of route, redirect and directResponse", at="spec.http[1]"),
    Bad(f"{FIRST}.route.0.destination.host", REMOVE, "is required"),
    Bad(f"{FIRST}.route.0.destination.host", "a b", "is not a DNS name"),
    Bad(f"{FIRST}.route.0.destination.host", "a.*.b", "is not a DNS name"),
    Bad(f"{FIRST}.route.0.destination.port.number", 0, "0 is not a port (1..65535)"),
    Bad(f"{FIRST}.route.0.destination.subset", "V1", "is not a DNS label"),
    Bad(f"{FIRST}.route.0.weight", -1, "-1 is not in range"),
    Bad(f"{FIRST}.route", [{"destination": {"host": "a"}}] * 2, "all weights are 0"),
    Bad(f"{MATCH}.uri", {"exact": "/a", "prefix": "/b"}, "needs at most one of exact, prefix and regex"),
    Bad(f"{MATCH}.uri", {}, "needs one of exact, prefix and regex"),
    Bad(f"{MATCH}.uri.prefix", "v1", "is not a path: it begins with /", at=f"{AT}.match[0].uri"),
    Bad(f"{MATCH}.uri.prefix", "/a?b", "a path may hold no blanks, queries", at=f"{AT}.match[0].uri"),
    Bad(f"{MATCH}.headers", {"a b": {"exact": "x"}}, "is not an HTTP header name", at=f"{AT}.match[0].headers[a b]"),
    Bad(
        f"{MATCH}.headers",
        {"x-team": {"regex": "("}},
        "is not a regular expression",
        at=f"{AT}.match[0].headers[x-team].regex",
    ),
    Bad(f"{MATCH}.withoutHeaders", {"X-Forwarded-Client-Cert": {}}, "can only be asked for in headers"),
    Bad(f"{MATCH}.sourceLabels", {"app": "a"}, "not known at a waypoint: use sourceNamespace"),
    Bad(f"{MATCH}.sourceNamespace", "A", "is not a DNS label"),
    Bad(f"{MATCH}.port", 0, "0 is not a port"),
    Bad(f"{MATCH}.unknown", 1, "unknown field"),
    Bad(f"{FIRST}.match", [{}] * 65, "at most 64 entries"),
    Bad(f"{FIRST}.timeout", "soon", "is not a duration"),
    Bad(f"{FIRST}.retries.attempts", 101, "101 is not in range (0..100)"),
    Bad(f"{FIRST}.retries.retryOn", "mondays", "'mondays' is no reason to retry, nor a status"),
    Bad(f"{FIRST}.retries.retryOn", "²", "'²' is no reason to retry, nor a status"),
    Bad(f"{FIRST}.retries.perTryTimeout", "0s", "has to be at least 1ms"),
    Bad(f"{FIRST}.fault", {}, "needs one of delay and abort"),
    Bad(f"{FIRST}.fault.delay.fixedDelay", "0s", "has to be at least 1ms"),
    Bad(f"{FIRST}.fault.delay.exponentialDelay", "1s", "not supported: give a fixedDelay"),
    Bad(f"{FIRST}.fault.abort.httpStatus", 99, "99 is not a status (200..599)"),
    Bad(f"{FIRST}.fault.abort.grpcStatus", "NOT_FOUND", "needs exactly one of", at=f"{AT}.fault.abort"),
    Bad(f"{FIRST}.fault.abort.percentage.value", 101, "101 is not a percentage (0..100)"),
    Bad(f"{FIRST}.mirror.host", "*.example.com", "is not a DNS name"),
    Bad(f"{FIRST}.mirrors", [], "may not stand beside mirror"),
    Bad(f"{FIRST}.mirrorPercentage.value", "5", "expected a number"),
    Bad(f"{FIRST}.corsPolicy.allowOrigins.0", {}, "needs exactly one of exact, prefix and regex"),
    Bad(f"{FIRST}.corsPolicy.allowMethods.0", "get", "is not one of GET"),
    Bad(f"{FIRST}.corsPolicy.allowOrigin", ["a"], "may not stand beside allowOrigins"),
    Bad(f"{FIRST}.headers.request.add", {"Host": "x"}, "may not be changed", at=f"{AT}.headers.request.add[Host]"),
    Bad(f"{FIRST}.headers.request.remove.0", ":path", "is not an HTTP header name"),
    Bad(f"{FIRST}.rewrite", {}, "needs one of uri, authority and uriRegexRewrite"),
    Bad(f"{FIRST}.rewrite.uri", r"/\1", "a path may hold no blanks, backslashes"),
    Bad("spec.http.3.rewrite.uriRegexRewrite.rewrite", r"/\2", r"\2 stands for nothing that match has"),
    Bad("spec.http.3.rewrite.uriRegexRewrite.match", "(", "is not a regular expression"),
    Bad("spec.http.1.rewrite", {"uri": "/x"}, "may not stand without a route"),
    Bad("spec.http.1.redirect.redirectCode", 304, "304 is not one of 301, 302, 303, 307, 308"),
    Bad("spec.http.1.redirect.derivePort", "FROM_REQUEST_PORT", "may not stand beside port"),
    Bad("spec.http.1.redirect.authority", "a b", "is not an authority"),
    Bad("spec.http.2.directResponse.status", 600, "600 is not a status (200..599)"),
    Bad("spec.http.2.directResponse.body.string", "x" * 4097, "longer than 4096 bytes"),
    Bad("spec.http.2.directResponse.body.bytes", "eA==", "not supported: give it as string"),
    Bad("spec.tls.0.match.0.sniHosts", REMOVE, "needs sniHosts", at="spec.tls[0].match[0]"),
    Bad("spec.tls.0.match", REMOVE, "a rule for tls needs a match with sniHosts", at="spec.tls[0]"),
    Bad("spec.tls.0.match.0.destinationSubnets", ["10.0.0.0/8"], "not supported: a waypoint is asked for services"),
    Bad("spec.tcp.0.match.0.sourceNamespace", "edge", "not supported for connections"),
    Bad("spec.tcp.0.match.0.sniHosts", ["a.b"], "is for rules of tls"),
    Bad("spec.tcp.0.route", REMOVE, "needs a route", at="spec.tcp[0]"),
    Bad("spec.http", [{"route": MANY}] * 7 + [{"route": MANY, "mirrors": COPIES}], "at most 512 destinations in all"),
    Bad("spec.tls", [{"match": [SNI] * 3, "route": MANY}] * 3, "at most 512 destinations in all rules together"),
    Bad("spec.tcp", [{"route": MANY}] * 9, "at most 512 destinations in all rules together"),
]


@pytest.mark.parametrize("bad", RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[-60:])
def test_a_broken_rule_is_refused(bad: Bad) -> None:
    refused(VIRTUAL, bad)


def test_what_is_read() -> None:
    found = parse_object(VIRTUAL, "x")
    assert isinstance(found, VirtualService)
    assert (found.hosts, found.export_to, found.mesh) == (("web", "*.example.com"), (".",), True)
    first, moved, answered, by_pattern = found.http
    headers = (
        TextMatch("x-team", "red"),
        TextMatch("x-any", "", "Present"),
        TextMatch("x-not", "a.*", "RegularExpression", absent=True),
        TextMatch(":scheme", "http"),
        TextMatch(":authority", "web.", "Prefix"),
    )
    path = PathMatch("Prefix", "/v1", any_case=True)
    assert first.ports == (80,)
    assert first.rule.matches == (RouteMatch(path, headers, (TextMatch("q", "1", "Prefix"),), "GET", "edge"),)
    subset = HeaderEdit((("x-subset", "v1"),))
    assert first.rule.backends == (
        BackendRef("web", 80, 90, kind="Hostname", subset="v1", request=subset),
        BackendRef("web-v2.shop.svc.cluster.local", 0, 10, kind="Hostname"),
    )
    assert first.rule.rewrite == Rewrite("inner", PathEdit("ReplacePrefixMatch", "/v2"))
    assert first.rule.timeout_ms == 1500
    assert first.rule.retry == Retry(3, (503, 504), ("connect-failure",), 25, 500)
    assert first.rule.fault == Fault(1000, 5000, 503, None, 10_000)
    assert first.rule.mirrors == (Mirror(BackendRef("copy", kind="Hostname"), 50_000),)
    origins = ("https://a.b", "https://.*", "http:")
    kinds = ("Exact", "RegularExpression", "Prefix")
    wanted = tuple(TextMatch("", text, how) for text, how in zip(origins, kinds, strict=True))
    assert first.rule.cors == Cors(wanted, ("GET",), ("x-a",), ("x-b",), 60, True, False)
    assert first.rule.request == HeaderEdit((), (("x-a", "1"),), ("x-b",))
    assert first.rule.response == HeaderEdit((("x-c", "2"),))
    assert moved.rule.redirect == Redirect("", "x:8080", 1, PathEdit("ReplaceFullPath", "/new"), 301)
    assert answered.rule.answer == Answer(418, "tea")
    assert by_pattern.rule.rewrite == Rewrite(path=PathEdit("RegularExpression", r"/\1", "^/(a)"))
    assert by_pattern.rule.matches == (RouteMatch(PathMatch("Prefix", "/")),)
    web = BackendRef("web", kind="Hostname")
    assert found.streams == (
        StreamRule((web,), ("a.example.com", "*.b.example.com"), 443),
        StreamRule((BackendRef("web", kind="Hostname", subset="v2"),), (), 9000),
    )


def test_as_many_destinations_as_there_may_be_are_taken() -> None:
    for kind, rule in (("http", {}), ("tls", {"match": [SNI]}), ("tcp", {})):
        parse_object(changed(VIRTUAL, f"spec.{kind}", [{**rule, "route": MANY}] * 8), "x")


def test_one_for_gateways_alone_is_not_for_the_mesh() -> None:
    for gateways, mesh in ((["ingress"], False), (["ingress", "mesh"], True)):
        found = parse_object(changed(VIRTUAL, "spec.gateways", gateways), "x")
        assert isinstance(found, VirtualService)
        assert found.mesh is mesh
