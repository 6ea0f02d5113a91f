"""DestinationRule and RequestAuthentication: what is read, and every rule that refuses one, with its whole reason."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.jwt_rules import JwtRule
from ambient.kube.networking import DestinationRule, RequestAuthentication
from ambient.kube.objects import parse_object
from ambient.kube.policies import TargetRef
from ambient.kube.traffic_values import Balancer, ClientTls, HashBy, TrafficPolicy
from tests.support.refusals import REMOVE, Bad, changed, refused_exactly
from tests.support.waypoint_views import KEYS

RULE: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "DestinationRule",
    "metadata": {"name": "db", "namespace": "shop"},
    "spec": {
        "host": "*.shop.svc.cluster.local",
        "exportTo": ["*"],
        "workloadSelector": {"matchLabels": {"app": "web"}},
        "trafficPolicy": {
            "loadBalancer": {"simple": "RANDOM"},
            "tls": {"mode": "SIMPLE", "sni": "x"},
            "portLevelSettings": [
                {"port": {"number": 80}, "loadBalancer": {"consistentHash": {"httpHeaderName": "x"}}}
            ],
        },
        "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "trafficPolicy": {"tunnel": {}}}],
    },
}
TOKENS: dict[str, Any] = {
    "apiVersion": "security.istio.io/v1",
    "kind": "RequestAuthentication",
    "metadata": {"name": "jwt", "namespace": "shop"},
    "spec": {
        "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
        "jwtRules": [
            {
                "issuer": "https://issuer.example.com",
                "audiences": ["web"],
                "jwks": KEYS,
                "fromHeaders": [{"name": "x-token", "prefix": "Bearer "}],
                "fromParams": ["token"],
                "fromCookies": ["token"],
                "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}],
                "forwardOriginalToken": True,
            }
        ],
    },
}
BY_URI = changed(changed(TOKENS, "spec.jwtRules.0.jwks", REMOVE), "spec.jwtRules.0.jwksUri", "https://x/jwks")

RULES = [
    Bad("spec.host", REMOVE, "is required"),
    Bad("spec.host", "a b", "'a b' is not a DNS name (labels of a-z, 0-9 and '-', joined by dots)"),
    Bad("spec.hosts", ["a"], "unknown field"),
    Bad("spec.trafficPolicy", {}, "needs at least one field"),
    Bad("spec.trafficPolicy.balancer", {}, "unknown field"),
    Bad(
        "spec.trafficPolicy.loadBalancer.simple",
        "FAST",
        "'FAST' is not one of UNSPECIFIED, LEAST_CONN, RANDOM, PASSTHROUGH, ROUND_ROBIN, LEAST_REQUEST",
    ),
    Bad("spec.trafficPolicy.loadBalancer.consistentHash", {}, "may not stand beside simple"),
    Bad("spec.trafficPolicy.tls.mode", "NONE", "'NONE' is not one of DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL"),
    Bad("spec.trafficPolicy.portLevelSettings.0.port.number", 0, "0 is not a port (1..65535)"),
    Bad("spec.trafficPolicy.portLevelSettings.0.port", REMOVE, "is required"),
    Bad("spec.subsets.1.name", "v1", "two subsets are called 'v1'", at="spec.subsets"),
    Bad("spec.subsets.0.label", {}, "unknown field"),
    Bad("spec.subsets", [{"name": f"v{i}"} for i in range(129)], "129 subsets: at most 128"),
]
DELIMITED = "spec.jwtRules[0].spaceDelimitedClaims[0]"
OWN = "is read by the proxy, no claim can be told in it"
TOKEN_RULES = [
    Bad("spec.selector", {"matchLabels": {"a": "b"}}, "may not stand beside selector", at="spec.targetRefs"),
    Bad("spec.rules", [], "unknown field"),
    Bad("spec.jwtRules", [{"issuer": "https://issuer.example.com"}] * 51, "at most 50 entries"),
    Bad("spec.jwtRules.0.issuer", REMOVE, "is required"),
    Bad("spec.jwtRules.0.issuer", "", "an empty issuer matches nothing"),
    Bad("spec.jwtRules.0.jwksUri", "https://x", "may not stand beside jwks"),
    Bad("spec.jwtRules.0.jwks", "keys", "is not JSON"),
    Bad("spec.jwtRules.0.jwks", "[]", "is not a set of keys"),
    Bad("spec.jwtRules.0.audiences.0", "", "an audience without a name matches nothing"),
    Bad("spec.jwtRules.0.jwks", '{"keys": []}', "holds no key"),
    Bad("spec.jwtRules.0.jwks", "[" * 1_200, "is not JSON"),
    Bad("spec.jwtRules.0.jwks", '{"keys": [{"kty": "RSA", "n": NaN}]}', "is not JSON"),
    Bad("spec.jwtRules.0.jwks", r'{"keys": [{"kty": "\ud800"}]}', "is not JSON"),
    Bad("spec.jwtRules.0.jwks", '{"keys": [{"kty": "later"}, 1]}', "keys[1] is no key: it has no kty"),
    Bad("spec.jwtRules.0.jwks", '{"keys": [{"kty": "RSA", "n": "AQ"}]}', "keys[0].e is missing or no base64url"),
    Bad("spec.jwtRules.0.jwks", '{"keys": [{"kty": "oct", "k": "+"}]}', "keys[0].k is missing or no base64url"),
    Bad("spec.jwtRules.0.fromParams.0", "", "a parameter without a name matches nothing"),
    Bad("spec.jwtRules.0.fromCookies.0", "", "a cookie without a name matches nothing"),
    Bad("spec.jwtRules.0.fromHeaders.0.prefix", "a\nb", "'a\\nb' cannot stand in a header"),
    Bad("spec.jwtRules.0.outputPayloadToHeader", "a b", "'a b' is not an HTTP header name"),
    Bad("spec.jwtRules.0.outputClaimToHeaders.0.claim", "", "a claim without a name matches nothing"),
    Bad("spec.jwtRules.0.spaceDelimitedClaims", [""], "a claim without a name matches nothing", at=DELIMITED),
    Bad("spec.jwtRules.0.outputPayloadToHeader", "Host", f"header 'host' {OWN}", at="spec.jwtRules"),
    Bad(
        "spec.jwtRules.0.outputPayloadToHeader", "content-length", f"header 'content-length' {OWN}", at="spec.jwtRules"
    ),
    Bad("spec.jwtRules.0.outputClaimToHeaders.0.header", "X-Token", f"header 'x-token' {OWN}", at="spec.jwtRules"),
    Bad("spec.jwtRules.0.fromHeaders.0.name", "a b", "'a b' is not an HTTP header name"),
    Bad("spec.jwtRules.0.outputClaimToHeaders.0.claim", REMOVE, "is required"),
    Bad("spec.jwtRules.0.forwardOriginalToken", 1, "expected true or false, found the number 1"),
    Bad("spec.jwtRules.0.keys", [], "unknown field"),
]


def test_what_is_read_of_a_destination_rule() -> None:
    found = parse_object(RULE, "x")
    assert isinstance(found, DestinationRule)
    assert (found.host, found.export_to, found.selector) == ("*.shop.svc.cluster.local", ("*",), {"app": "web"})
    of_port = TrafficPolicy(Balancer(hash_by=HashBy("header", "x")))
    assert found.traffic == TrafficPolicy(Balancer("RANDOM"), tls=ClientTls("SIMPLE", sni="x"), ports=((80, of_port),))
    assert [subset.name for subset in found.subsets] == ["v1", "v2"]


def test_what_is_read_of_a_request_authentication() -> None:
    found = parse_object(TOKENS, "x")
    assert isinstance(found, RequestAuthentication)
    assert found.target_refs == (TargetRef("", "Service", "web"),)
    assert found.rules == (
        JwtRule(
            issuer="https://issuer.example.com",
            audiences=("web",),
            keys=KEYS,
            from_headers=(("x-token", "Bearer "),),
            from_params=("token",),
            from_cookies=("token",),
            forward=True,
            claim_headers=(("x-sub", "sub"),),
        ),
    )


def test_without_a_place_for_tokens_no_claim_can_stand_where_they_are_by_themselves() -> None:
    spec = {"jwtRules": [{"issuer": "a", "outputPayloadToHeader": "Authorization"}]}
    with pytest.raises(InvalidInput, match="'authorization' is read by the proxy"):
        parse_object(changed(TOKENS, "spec", spec), "x")


def test_a_request_authentication_may_be_empty() -> None:
    found = parse_object(changed(TOKENS, "spec", REMOVE), "x")
    assert isinstance(found, RequestAuthentication)
    assert (found.selector, found.target_refs, found.rules) == (None, (), ())


@pytest.mark.parametrize("base", [RULE, TOKENS], ids=["DestinationRule", "RequestAuthentication"])
def test_a_live_server_does_not_make_an_unknown_field_acceptable(base: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="unknown field"):
        parse_object(changed(base, "spec.x", 1), "x", observed=True)


@pytest.mark.parametrize("bad", RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[:60])
def test_a_broken_rule_of_a_destination_rule_is_refused(bad: Bad) -> None:
    refused_exactly(RULE, bad)


@pytest.mark.parametrize("bad", TOKEN_RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[:60])
def test_a_broken_rule_of_a_request_authentication_is_refused(bad: Bad) -> None:
    refused_exactly(TOKENS, bad)


def test_where_keys_are_fetched_from_must_be_a_url() -> None:
    refused_exactly(BY_URI, Bad("spec.jwtRules.0.jwksUri", "file:///k", "'file:///k' is not an http or https URL"))
