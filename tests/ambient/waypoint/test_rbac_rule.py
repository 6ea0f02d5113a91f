"""Each field of a rule: what it lets through and what it does not, by Envoy's own rules of matching."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from ambient.kube.policies import Operation, PolicyRule, Source, When
from ambient.waypoint.rbac_rule import Context, translate
from tests.support.envoy_rbac import Request, allowed

SHOP = "spiffe://cluster.local/ns/shop/sa/client"
FAR = "spiffe://other.example/ns/far/sa/else"
CONTEXT = Context("shop", ("cluster.local", "old.example"), (ip_address("10.96.0.1"),), 80, True)


def source(**fields: Any) -> PolicyRule:
    return PolicyRule(sources=(Source(**fields),))


def operation(**fields: Any) -> PolicyRule:
    return PolicyRule(operations=(Operation(**fields),))


def when(key: str, *values: str, without: tuple[str, ...] = ()) -> PolicyRule:
    return PolicyRule(when=(When(key=key, values=values, not_values=without),))


def request(peer: str = SHOP, **fields: Any) -> Request:
    return Request(peer, **fields)


def host(text: str) -> Request:
    return request(headers={"host": text})


CASES: dict[str, tuple[PolicyRule, list[Request], list[Request]]] = {
    "everything": (PolicyRule(), [request(), request(FAR)], []),
    "a principal": (source(principals=("cluster.local/ns/shop/sa/client",)), [request()], [request(FAR)]),
    "a principal of an alias of our trust domain": (
        source(principals=("cluster.local/ns/shop/sa/client",)),
        [request("spiffe://old.example/ns/shop/sa/client")],
        [request("spiffe://older.example/ns/shop/sa/client")],
    ),
    "principals by their beginning": (source(principals=("cluster.local/ns/shop/*",)), [request()], [request(FAR)]),
    "principals by their end": (source(principals=("*/sa/client",)), [request()], [request(FAR)]),
    "anybody with an identity": (source(principals=("*",)), [request(), request(FAR)], [request("")]),
    "no principal of these": (source(not_principals=("*/sa/client",)), [request(FAR)], [request()]),
    "a namespace": (source(namespaces=("shop",)), [request()], [request(FAR), request(SHOP.replace("shop", "shopx"))]),
    "namespaces by their beginning": (source(namespaces=("sh*",)), [request()], [request(FAR)]),
    "no namespace of these": (source(not_namespaces=("shop",)), [request(FAR)], [request()]),
    "a dot in a namespace stands for itself": (
        source(namespaces=("a.b",)), [request("spiffe://x/ns/a.b/sa/c")], [request("spiffe://x/ns/axb/sa/c")],
    ),
    "an account of the policy's namespace": (source(service_accounts=("client",)), [request()], [request(FAR)]),
    "an account of another": (source(service_accounts=("far/else",)), [request(FAR)], [request()]),
    "a trust domain": (source(trust_domains=("other.example",)), [request(FAR)], [request()]),
    "addresses": (source(ip_blocks=("10.1.0.0/16",)), [request()], [request(ip="10.2.0.1")]),
    "no addresses of these": (source(not_ip_blocks=("10.1.0.0/16",)), [request(ip="10.2.0.1")], [request()]),
    "both of two fields": (
        source(namespaces=("shop",), ip_blocks=("10.1.0.1",)), [request()], [request(ip="10.1.0.2"), request(FAR)],
    ),
    "one of two sources": (
        PolicyRule(sources=(Source(namespaces=("shop",)), Source(namespaces=("far",)))),
        [request(), request(FAR)],
        [request("spiffe://x/ns/z/sa/z")],
    ),
    "a method": (operation(methods=("GET",)), [request()], [request(method="POST")]),
    "no method of these": (operation(not_methods=("GET",)), [request(method="POST")], [request()]),
    "a path": (operation(paths=("/a",)), [request(path="/a")], [request(path="/a/b"), request(path="/")]),
    "paths by their beginning": (operation(paths=("/a/*",)), [request(path="/a/b")], [request(path="/ab")]),
    "paths by their end": (operation(paths=("*/b",)), [request(path="/a/b")], [request(path="/b/c")]),
    "a path with one part open": (
        operation(paths=("/u/{*}/x",)), [request(path="/u/7/x")], [request(path="/u/7/8/x"), request(path="/u//x")],
    ),
    "a path with any number open": (
        operation(paths=("/u/{**}",)), [request(path="/u/7/8"), request(path="/u/")], [request(path="/v")],
    ),
    "a host, however it is written": (
        operation(hosts=("web.shop",)),
        [host("web.shop"), host("WEB.shop:80"), host("web.shop."), host("web.shop:"), host("me@web.shop:80")],
        [host("web.shop.evil"), host("xweb.shop"), host("webxshop"), host("web.shop@evil")],
    ),
    "hosts by their end": (operation(hosts=("*.shop",)), [host("a.shop")], [host("a.shopx")]),
    "no host of these": (operation(not_hosts=("web.shop",)), [host("x.shop")], [host("Web.shop:8080")]),
    "the service's port": (operation(ports=(80,)), [request()], []),
    "another port": (operation(ports=(81,)), [], [request()]),
    "no port of these": (operation(not_ports=(80,)), [], [request()]),
    "a header": (when("request.headers[X-A]", "1*"), [request(headers={"x-a": "12"})], [request(headers={"x-a": "2"})]),
    "a header that is there": (when("request.headers[x-a]", "*"), [request(headers={"x-a": ""})], [request()]),
    "no such header": (
        when("request.headers[x-a]", without=("1",)), [request(), request(headers={"x-a": "2"})],
        [request(headers={"x-a": "1"})],
    ),
    "when by address": (when("source.ip", "10.1.0.0/16"), [request()], [request(ip="10.2.0.1")]),
    "when by destination": (when("destination.ip", "10.96.0.0/16"), [request()], []),
    "when by another destination": (when("destination.ip", "10.97.0.0/16"), [], [request()]),
    "when by port": (when("destination.port", "80"), [request()], []),
    "when by namespace": (when("source.namespace", "shop"), [request()], [request(FAR)]),
    "a request's principal": (
        source(request_principals=("https://i/me",)),
        [request(claims={"iss": "https://i", "sub": "me"})],
        [request(), request(claims={"iss": "https://i", "sub": "you"}), request(claims={"iss": "x", "sub": "me"})],
    ),
    "any request with a token": (
        source(request_principals=("*",)), [request(claims={"iss": "i", "sub": "s"})], [request()],
    ),
    "a claim in a list or by itself": (
        when("request.auth.claims[groups]", "admin"),
        [request(claims={"groups": ["x", "admin"]}), request(claims={"groups": "admin"})],
        [request(), request(claims={"groups": ["x"]})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_rule_matches_what_it_says(name: str) -> None:
    rule, good, bad = CASES[name]
    translated = translate(rule, CONTEXT, allow=True)
    assert translated is not None
    filters = {"allow": {"rbac": {"rules": {"action": "ALLOW", "policies": {"x": translated}}}}}
    assert [allowed(filters, one) for one in good] == [True] * len(good)
    assert [allowed(filters, one) for one in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    "rule",
    [when("connection.sni", "x"), source(request_principals=("*x",)), when("experimental.envoy.filters.x[y]", "z")],
)
def test_what_cannot_be_said_opens_nothing(rule: PolicyRule) -> None:
    assert translate(rule, CONTEXT, allow=True) is None
    assert translate(rule, CONTEXT, allow=False) == {"permissions": [{"any": True}], "principals": [{"any": True}]}


SPELLED: list[tuple[str, list[str], list[str]]] = [
    ("/a!b", ["/a!b", "/a%21b"], ["/a!", "/a!bc", "/a%22b"]),
    ("*:delete", ["/v1/x:delete", "/v1/x%3Adelete", "/v1/x%3adelete"], ["/v1/x:deleted"]),
    ("/v1/x:*", ["/v1/x:delete", "/v1/x%3A", "/v1/x%3ay/z"], ["/v1/x", "/v1/xy"]),
    ("/v1/{*}:purge", ["/v1/x:purge", "/v1/x%3Apurge", "/v1/x%3apurge"], ["/v1/x/y:purge", "/v1/:x"]),
    ("/v1/{**}:purge", ["/v1/x/y:purge", "/v1/x/y%3Apurge"], ["/v2/x:purge"]),
    ("/gr%C3%B6sse", ["/gr%C3%B6sse", "/gr%c3%b6sse", "/gr%c3%B6sse"], ["/grosse"]),
    ("/a%3Ab", ["/a:b", "/a%3ab", "/a%3Ab"], ["/ab"]),
    ("/a%20b", ["/a%20b"], ["/a+b"]),
    ("/a%253Ab", ["/a%253Ab"], ["/a%3Ab", "/a:b"]),
    ("/a.b+c", ["/a.b+c", "/a.b%2Bc", "/a.b%2bc"], ["/axb+c", "/a.bbc"]),
]


@pytest.mark.parametrize(("value", "good", "bad"), SPELLED)
def test_what_closes_by_a_path_closes_every_spelling_of_it(value: str, good: list[str], bad: list[str]) -> None:
    deny = translate(operation(paths=(value,)), CONTEXT, allow=False)
    others = translate(operation(not_paths=(value,)), CONTEXT, allow=True)
    for action, policy in (("DENY", deny), ("ALLOW", others)):
        filters = {"one": {"rbac": {"rules": {"action": action, "policies": {"x": policy}}}}}
        assert [one for one in good if allowed(filters, request(path=one))] == []
        assert [one for one in bad if not allowed(filters, request(path=one))] == []


WRITTEN: list[tuple[str, str, list[str]]] = [
    ("/a!b", "/a!b", ["/a%21b"]),
    ("*:delete", "/v1/x:delete", ["/v1/x%3Adelete", "/v1/x%3adelete"]),
    ("/v1/x:*", "/v1/x:y", ["/v1/x%3Ay"]),
    ("/v1/{*}:purge", "/v1/x:purge", ["/v1/x%3Apurge"]),
    ("/gr%C3%B6sse", "/gr%C3%B6sse", ["/gr%c3%b6sse"]),
    ("/a%3Ab", "/a%3Ab", ["/a:b", "/a%3ab"]),
]


@pytest.mark.parametrize(("value", "good", "bad"), WRITTEN)
def test_what_opens_by_a_path_opens_what_is_written(value: str, good: str, bad: list[str]) -> None:
    allow = translate(operation(paths=(value,)), CONTEXT, allow=True)
    others = translate(operation(not_paths=(value,)), CONTEXT, allow=False)
    for action, policy in (("ALLOW", allow), ("DENY", others)):
        filters = {"one": {"rbac": {"rules": {"action": action, "policies": {"x": policy}}}}}
        assert [one for one in (good, *bad) if allowed(filters, request(path=one))] == [good]


FORGE = "https://token.example"
SLASHED: list[tuple[str, list[tuple[str, str]], list[tuple[str, str]]]] = [
    (
        f"{FORGE}/repo:org/app:ref:refs/heads/main",
        [(FORGE, "repo:org/app:ref:refs/heads/main")],
        [(FORGE, "main"), (FORGE, "repo:org/app:ref:refs/heads/other"), ("https:", "main")],
    ),
    (f"{FORGE}/repo:org/*", [(FORGE, "repo:org/app"), (f"{FORGE}/repo:org", "x")], [(FORGE, "repo:orgs/app")]),
    (f"{FORGE}/*", [(FORGE, "a/b")], [(f"{FORGE}s", "a/b"), (f"{FORGE}/x", "b")]),
    ("*/joe", [(FORGE, "joe"), (f"{FORGE}/x", "joe")], [(FORGE, "joes")]),
    ("*", [(FORGE, "a/b")], []),
]


def closed(rule: PolicyRule, action: str, claims: tuple[str, str]) -> bool:
    translated = translate(rule, CONTEXT, allow=action == "ALLOW")
    policies = {} if translated is None else {"x": translated}
    filters = {"one": {"rbac": {"rules": {"action": action, "policies": policies}}}}
    return not allowed(filters, request(claims=dict(zip(("iss", "sub"), claims, strict=True))))


@pytest.mark.parametrize(("value", "good", "bad"), SLASHED)
def test_what_closes_by_a_requests_principal_finds_a_subject_with_slashes(
    value: str, good: list[tuple[str, str]], bad: list[tuple[str, str]]
) -> None:
    key = "request.auth.principal"
    deny = (source(request_principals=(value,)), when(key, value))
    others = (source(not_request_principals=(value,)), when(key, without=(value,)))
    for action, rules in (("DENY", deny), ("ALLOW", others)):
        for rule in rules:
            assert [one for one in (*good, *bad) if closed(rule, action, one)] == good


def test_what_opens_by_a_requests_principal_ends_the_issuer_at_the_last_slash() -> None:
    rule = source(request_principals=(f"{FORGE}/a/b",))
    assert not closed(rule, "ALLOW", (f"{FORGE}/a", "b"))
    assert closed(rule, "ALLOW", (FORGE, "a/b"))


def test_a_principal_with_too_many_slashes_opens_nothing_and_closes_all() -> None:
    rule = source(request_principals=("a/" * 33 + "b",))
    assert closed(rule, "DENY", ("x", "y"))
    assert closed(source(not_request_principals=("a/" * 33 + "b",)), "ALLOW", ("x", "y"))
