"""AuthorizationPolicy and PeerAuthentication: what is read, and every rule that refuses one."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.objects import AuthorizationPolicy, PeerAuthentication, parse_object
from ambient.kube.policies import Operation, PeerMtls, PolicyRule, Source, TargetRef, When
from tests.support.refusals import REMOVE, Bad, changed, refused

POLICY: dict[str, Any] = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "p", "namespace": "shop"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "action": "DENY",
        "rules": [
            {
                "from": [
                    {
                        "source": {
                            "principals": ["cluster.local/ns/shop/sa/till", "*"],
                            "notPrincipals": ["*/sa/x"],
                            "requestPrincipals": ["*"],
                            "notRequestPrincipals": ["a"],
                            "namespaces": ["a-*"],
                            "notNamespaces": ["b"],
                            "ipBlocks": ["10.0.0.0/8", "fd00::1"],
                            "notIpBlocks": ["10.1.0.0/16"],
                            "remoteIpBlocks": ["1.2.3.4"],
                            "notRemoteIpBlocks": ["1.2.3.5"],
                            "trustDomains": ["td"],
                            "notTrustDomains": ["td2"],
                        }
                    },
                    {"source": {"serviceAccounts": ["till", "shop/till"], "notServiceAccounts": ["x/y"]}},
                ],
                "to": [
                    {
                        "operation": {
                            "ports": ["80"],
                            "notPorts": ["81"],
                            "hosts": ["h"],
                            "notHosts": ["n"],
                            "methods": ["GET"],
                            "notMethods": ["PUT"],
                            "paths": ["/a/{*}"],
                            "notPaths": ["/b"],
                        }
                    }
                ],
                "when": [
                    {"key": "source.ip", "values": ["10.0.0.1"], "notValues": ["10.0.0.2"]},
                    {"key": "destination.port", "values": ["80"]},
                    {"key": "request.headers[x-a]", "values": ["v"]},
                    {"key": "request.auth.claims[a][b]", "notValues": ["v"]},
                ],
            },
            {},
        ],
    },
}
SOURCE, ACCOUNTS = "spec.rules.0.from.0.source", "spec.rules.0.from.1.source"
TO, WHEN = "spec.rules.0.to.0.operation", "spec.rules.0.when"

NO_REQUESTS = [
    ("/a//b", "may not hold '//'"),
    ("*//b", "may not hold '//'"),
    ("/a/./b", "may not hold '/./'"),
    ("/a/..", "dot segment"),
    ("*/..", "dot segment"),
    ("/{*}/../b", "may not hold '/../'"),
    ("/q%2Fz", "without '%2F'"),
    ("/q%5cz", "without '%5c'"),
    ("/%61b", "without '%61'"),
    ("/a%7Eb", "without '%7E'"),
    ("/a%3", "may not hold '%'"),
    ("/a%2*", "may not hold '%'"),
    ("/a%{**}", "may not hold '%'"),
    ("/a?b", "may not hold '?'"),
    ("/a#b*", "may not hold '#'"),
    ("/a b", "no blanks"),
    ("/\u00e4", "as %XX"),
    ("a/b", "is not a path"),
    ("{*}/b", "is not a path"),
]
RULES = [
    Bad("spec.action", "deny", "is not one of ALLOW, DENY, AUDIT, CUSTOM"),
    Bad("spec.action", "CUSTOM", "CUSTOM needs provider.name"),
    Bad("spec.provider", {"name": "x"}, "only the action CUSTOM has a provider"),
    Bad("spec.provider", {}, "is required", at="spec.provider.name"),
    Bad("spec.rule", [], "unknown field"),
    Bad("spec.rules", {}, "expected a list"),
    Bad("spec.rules.0", [], "expected a mapping"),
    Bad("spec.rules.1.form", [], "unknown field"),
    Bad("spec.rules.1.from", [], "needs at least one entry"),
    Bad("spec.rules.1.to", [], "needs at least one entry"),
    Bad("spec.rules.0.from.0.source", REMOVE, "is required"),
    Bad("spec.rules.0.to.0.operation", REMOVE, "is required"),
    Bad("spec.rules.0.from.0.sources", {}, "unknown field"),
    Bad("spec.rules.0.to.0.operations", {}, "unknown field"),
    Bad(SOURCE, {}, "needs at least one field"),
    Bad(TO, {}, "needs at least one field"),
    Bad(f"{SOURCE}.principal", ["x"], "unknown field"),
    Bad(f"{SOURCE}.principals", [], "an empty list means nothing"),
    Bad(f"{TO}.ports", [], "an empty list means nothing"),
    Bad(f"{SOURCE}.principals", "x", "expected a list"),
    Bad(f"{SOURCE}.principals.0", "", "an empty value matches nothing"),
    Bad(f"{SOURCE}.principals.0", "a*b", "a * may stand alone, first or last"),
    Bad(f"{SOURCE}.principals.0", "*a*", "a * may stand alone, first or last"),
    Bad(f"{SOURCE}.principals.0", "spiffe://cluster.local/ns/a/sa/b", "without spiffe://"),
    Bad(f"{SOURCE}.notPrincipals.0", "spiffe://x", "without spiffe://"),
    Bad(f"{SOURCE}.namespaces.0", "", "an empty value"),
    Bad(f"{SOURCE}.notNamespaces.0", "a*b", "a * may stand"),
    Bad(f"{SOURCE}.namespaces.0", 7, "expected a string"),
    Bad(f"{SOURCE}.requestPrincipals.0", "", "an empty value"),
    Bad(f"{SOURCE}.notRequestPrincipals.0", "", "an empty value"),
    Bad(f"{SOURCE}.ipBlocks.0", "10.0.0/8", "not an IP address or CIDR"),
    Bad(f"{SOURCE}.ipBlocks.0", "10.0.0.0/33", "not an IP address or CIDR"),
    Bad(f"{SOURCE}.ipBlocks.0", "10.0.0.0/255.0.0.0", "prefix length must be a number"),
    Bad(f"{SOURCE}.ipBlocks.0", "fe80::1%eth0", "scoped address"),
    Bad(f"{SOURCE}.notIpBlocks.0", "x", "not an IP address or CIDR"),
    Bad(f"{SOURCE}.remoteIpBlocks.0", "x", "not an IP address or CIDR"),
    Bad(f"{SOURCE}.notRemoteIpBlocks.0", "x", "not an IP address or CIDR"),
    Bad(f"{SOURCE}.trustDomains.0", "", "an empty value"),
    Bad(f"{SOURCE}.notTrustDomains.0", "", "an empty value"),
    Bad(
        f"{ACCOUNTS}.principals",
        ["x"],
        "may not stand beside principals",
        at="spec.rules[0].from[1].source.serviceAccounts",
    ),
    Bad(f"{ACCOUNTS}.notNamespaces", ["x"], "beside notNamespaces", at="spec.rules[0].from[1].source.serviceAccounts"),
    Bad(f"{ACCOUNTS}.serviceAccounts.0", "a/b/c", "not a namespace"),
    Bad(f"{ACCOUNTS}.serviceAccounts.0", "*", "know no wildcards"),
    Bad(f"{ACCOUNTS}.serviceAccounts.0", "Till", "<namespace>/<account>"),
    Bad(f"{ACCOUNTS}.serviceAccounts.0", "/till", "not a namespace"),
    Bad(f"{ACCOUNTS}.notServiceAccounts.0", "shop/", "<namespace>/<account>"),
    Bad(f"{ACCOUNTS}.serviceAccounts", ["a"] * 17, "at most 16"),
    Bad(f"{TO}.ports.0", "0", "not a port"),
    Bad(f"{TO}.ports.0", "65536", "not a port"),
    Bad(f"{TO}.ports.0", "http", "not a port"),
    Bad(f"{TO}.ports.0", "9" * 5_000, "not a port"),
    Bad(f"{TO}.ports.0", "80-90", "not a port"),
    Bad(f"{TO}.ports.0", "8²", "not a port"),
    Bad(f"{TO}.ports.0", 80, "expected a string, found the number 80 (quote it)"),
    Bad(f"{TO}.notPorts.0", "x", "not a port"),
    Bad(f"{TO}.hosts.0", "", "an empty value"),
    Bad(f"{TO}.notHosts.0", "a*b", "a * may stand"),
    Bad(f"{TO}.methods.0", "", "an empty value"),
    Bad(f"{TO}.notMethods.0", "", "an empty value"),
    Bad(f"{TO}.paths.0", "", "an empty value"),
    Bad(f"{TO}.notPaths.0", "", "an empty value"),
    Bad(f"{TO}.paths.0", "/admin/*/x", "a * may stand alone, first or last"),
    Bad(f"{TO}.notPaths.0", "/a/{*}/b*", "neither * nor braces"),
    Bad(f"{TO}.paths.0", "/a/{**}/{x}", "neither * nor braces"),
    Bad(f"{TO}.paths.0", "/{*}" * 300, "longer than 1024"),
    *(Bad(f"{TO}.{field}.0", value, reason) for field in ("paths", "notPaths") for value, reason in NO_REQUESTS),
    Bad(f"{TO}.hosts.0", "a" * 1025, "longer than 1024"),
    Bad(f"{SOURCE}.namespaces.0", "a" * 1025, "longer than 1024"),
    Bad(f"{WHEN}.0.key", "request.headers[x\ry]", "names no header"),
    Bad(f"{WHEN}.0.key", f"request.headers[{'x' * 1025}]", "longer than 1024 characters"),
    Bad(f"{WHEN}.0.key", "request.headers" + "[a]" * 60 + "x", "not a known attribute"),
    Bad(f"{WHEN}.0.key", "request.auth.claims" + "[a]" * 300 + "x", "not a known attribute"),
    Bad(f"{WHEN}.0.key", "experimental.envoy.filters." + "a.[b]" * 100, "not a known attribute"),
    Bad(f"{WHEN}.0.key", "request.headers[a][b]", "not a known attribute"),
    Bad(f"{WHEN}.0.key", "request.auth.claims[a]b[c]", "not a known attribute"),
    Bad(f"{WHEN}.0.key", "request.auth.claims[[a]]", "not a known attribute"),
    Bad(f"{WHEN}.0.key", "source.port", "not a known attribute"),
    Bad(f"{WHEN}.0.key", "request.headers", "not a known attribute"),
    Bad(f"{WHEN}.0.key", REMOVE, "is required"),
    Bad(f"{WHEN}.1.values", REMOVE, "needs values or notValues", at="spec.rules[0].when[1]"),
    Bad(f"{WHEN}.0.values.0", "ten", "not an IP address or CIDR"),
    Bad(f"{WHEN}.0.notValues.0", "ten", "not an IP address or CIDR"),
    Bad(f"{WHEN}.1.values.0", "http", "not a port"),
    Bad(f"{WHEN}.2.values.0", "", "an empty value"),
    Bad(f"{WHEN}.0.value", "x", "unknown field"),
    Bad("spec.targetRef", {"kind": "Service", "name": "x"}, "may not stand beside selector"),
    Bad("spec.targetRefs", [{"kind": "Service", "name": "x"}], "may not stand beside selector"),
    Bad("spec.selector.matchExpressions", [], "unknown field"),
    Bad("spec.selector.matchLabels.app", "w*", "a selector knows no wildcards", at="spec.selector.matchLabels[app]"),
    Bad("spec.selector.matchLabels.app", "a b", "not a label value", at="spec.selector.matchLabels[app]"),
    Bad("apiVersion", "security.istio.io/v1alpha1", "does not have AuthorizationPolicy"),
]


@pytest.mark.parametrize("bad", RULES, ids=lambda bad: f"{bad.path}={str(bad.value)[:30]!a}")
def test_an_invalid_policy_is_refused_with_field_and_reason(bad: Bad) -> None:
    refused(POLICY, bad)


TARGETED = changed(changed(POLICY, "spec.selector", REMOVE), "spec.targetRefs", [{"kind": "Service", "name": "web"}])


@pytest.mark.parametrize(
    "bad",
    [
        Bad("spec.targetRefs", [{"kind": "Service", "name": "x"}] * 17, "at most 16"),
        Bad("spec.targetRefs.0.kind", REMOVE, "is required"),
        Bad("spec.targetRefs.0.name", "X", "not a DNS name"),
        Bad("spec.targetRefs.0.namespace", "a.b", "not a DNS label"),
        Bad("spec.targetRefs.0.port", 80, "unknown field"),
        Bad("spec.targetRef", {"kind": "Service", "name": "x"}, "may not stand beside targetRef", at="spec.targetRefs"),
    ],
    ids=lambda bad: bad.path,
)
def test_an_invalid_target_is_refused(bad: Bad) -> None:
    refused(TARGETED, bad)


PEER: dict[str, Any] = {
    "apiVersion": "security.istio.io/v1beta1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "p"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {"9000": {"mode": "DISABLE"}, "80": {"mode": "PERMISSIVE"}},
    },
}


@pytest.mark.parametrize(
    "bad",
    [
        Bad("spec.mtls.mode", "strict", "is not one of UNSET, DISABLE, PERMISSIVE, STRICT"),
        Bad("spec.mtls.modus", "STRICT", "unknown field"),
        Bad("spec.mtls", "STRICT", "expected a mapping"),
        Bad("spec.selector", REMOVE, "needs a selector", at="spec.portLevelMtls"),
        Bad("spec.selector", {}, "needs a selector", at="spec.portLevelMtls"),
        Bad("spec.portLevelMtls", {}, "at least one port"),
        Bad("spec.portLevelMtls", {"http": {}}, "not a port", at="spec.portLevelMtls[http]"),
        Bad("spec.portLevelMtls", {"0": {}}, "not a port", at="spec.portLevelMtls[0]"),
        Bad("spec.portLevelMtls", {"9" * 5_000: {}}, "not a port", at=f"spec.portLevelMtls[{'9' * 5_000}]"),
        Bad("spec.portLevelMtls", {"080": {}}, "not a port", at="spec.portLevelMtls[080]"),
        Bad("spec.portLevelMtls", {"80": {"mode": "X"}}, "is not one of", at="spec.portLevelMtls[80].mode"),
        Bad("spec.portLevelMtls", {80: {}}, "the key 80 is not a string", at="spec.portLevelMtls"),
        Bad("spec.portLevel", {}, "unknown field"),
    ],
    ids=lambda bad: f"{bad.path}={bad.value!a}"[:60],
)
def test_an_invalid_peer_authentication_is_refused(bad: Bad) -> None:
    refused(PEER, bad)


def policy(raw: dict[str, Any]) -> AuthorizationPolicy:
    parsed = parse_object(raw, "test")
    assert isinstance(parsed, AuthorizationPolicy)
    return parsed


def test_a_policy_is_read() -> None:
    read = policy(POLICY)
    assert (read.key, read.selector, read.action) == ("AuthorizationPolicy/shop/p", {"app": "web"}, "DENY")
    assert read.rules == (
        PolicyRule(
            sources=(
                Source(
                    principals=("cluster.local/ns/shop/sa/till", "*"),
                    not_principals=("*/sa/x",),
                    request_principals=("*",),
                    not_request_principals=("a",),
                    namespaces=("a-*",),
                    not_namespaces=("b",),
                    ip_blocks=("10.0.0.0/8", "fd00::1"),
                    not_ip_blocks=("10.1.0.0/16",),
                    remote_ip_blocks=("1.2.3.4",),
                    not_remote_ip_blocks=("1.2.3.5",),
                    trust_domains=("td",),
                    not_trust_domains=("td2",),
                ),
                Source(service_accounts=("till", "shop/till"), not_service_accounts=("x/y",)),
            ),
            operations=(
                Operation(
                    ports=(80,),
                    not_ports=(81,),
                    hosts=("h",),
                    not_hosts=("n",),
                    methods=("GET",),
                    not_methods=("PUT",),
                    paths=("/a/{*}",),
                    not_paths=("/b",),
                ),
            ),
            when=(
                When(key="source.ip", values=("10.0.0.1",), not_values=("10.0.0.2",)),
                When(key="destination.port", values=("80",)),
                When(key="request.headers[x-a]", values=("v",)),
                When(key="request.auth.claims[a][b]", not_values=("v",)),
            ),
        ),
        PolicyRule(),
    )


@pytest.mark.parametrize("spec", [REMOVE, {}, {"selector": {}}, {"selector": {"matchLabels": {}}}])
def test_a_policy_without_anything_allows_nothing_in_its_namespace(spec: Any) -> None:
    read = policy(changed(POLICY, "spec", spec))
    assert (read.action, read.rules, read.selector) == ("ALLOW", (), None)


def test_a_single_target_is_one_of_many() -> None:
    raw = changed(POLICY, "spec", {"targetRef": {"group": "g", "kind": "Gateway", "name": "wp", "namespace": "ns"}})
    assert policy(raw).target_refs == (TargetRef("g", "Gateway", "wp", "ns"),)


def test_a_custom_policy_keeps_its_provider() -> None:
    assert policy(changed(POLICY, "spec", {"action": "CUSTOM", "provider": {"name": "x"}})).provider == "x"


def test_a_peer_authentication_is_read() -> None:
    read = parse_object(PEER, "test")
    assert isinstance(read, PeerAuthentication)
    assert read.mtls == PeerMtls("STRICT", ((80, "PERMISSIVE"), (9000, "DISABLE")))
    bare = parse_object(changed(PEER, "spec", {}), "test")
    assert isinstance(bare, PeerAuthentication)
    assert (bare.selector, bare.mtls) == (None, PeerMtls())


def test_an_unknown_field_is_refused_even_from_a_live_server() -> None:
    with pytest.raises(Exception, match=r"spec\.rules\[0\]\.unless: unknown field"):
        parse_object(changed(POLICY, "spec.rules.0.unless", []), "test", observed=True)


PLAIN = ["*", "/", "/*", "*/b", "*.css", "/.*", "/{*}/{**}", "{**}/b", "/{*}{*}", "/x:y", "/%3A", "/a%c3%9f*", "/a%25b"]


@pytest.mark.parametrize("value", PLAIN)
def test_a_path_of_a_policy_may_be_what_a_request_can_have(value: str) -> None:
    rules = [{"to": [{"operation": {"paths": [value]}}]}]
    policy = parse_object(changed(POLICY, "spec.rules", rules), "test")
    assert isinstance(policy, AuthorizationPolicy)
    assert policy.rules[0].operations[0].paths == (value,)
