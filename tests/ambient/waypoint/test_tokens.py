"""Whose tokens a waypoint believes: what is written for Envoy, and what that decides of good and bad tokens."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ambient.kube.jwt_rules import JwtRule
from ambient.kube.policies import PolicyRule, Source, When
from ambient.waypoint.front import FrontPort, Policy, Protocol
from ambient.waypoint.rbac import http_filters
from ambient.waypoint.resources import resources
from ambient.waypoint.service import served
from ambient.waypoint.tokens import NOBODYS_KEY, NOBODYS_SEED, token_filters, without_claims
from ambient.waypoint.typed import LISTENER_TYPE
from ambient.waypoint.wire import encode
from tests.support.envoy_rbac import Request, allowed
from tests.support.tokens import LONG_AGO, Asking, Issuer, accepted, bearer
from tests.support.waypoint_views import BELIEVED, EVERY_TOKEN, front, policy, view

GOLDEN = Path(__file__).parents[2] / "golden" / "waypoint" / "tokens.json"
OURS = Issuer()
THEIRS = Issuer("https://theirs.example.com")
RULE = JwtRule(issuer=OURS.name, audiences=("web", "shop"), keys=OURS.keys)
OTHER = JwtRule(issuer=THEIRS.name, keys=THEIRS.keys, from_headers=(("x-token", ""),), from_cookies=("t",))
HTTP = FrontPort(80, Protocol.HTTP)


def test_it_is_what_is_written_down() -> None:
    """After a change that is meant: write what comes out into the file, and read the difference."""
    found = {"early": without_claims(BELIEVED), "filters": token_filters(BELIEVED)}
    assert found == json.loads(GOLDEN.read_text())


def test_every_resource_with_tokens_is_a_message_of_its_type() -> None:
    for url, name, content in resources(EVERY_TOKEN):
        encode(url, name, content)


def test_without_rules_nothing_stands_in_the_listener() -> None:
    assert (token_filters(()), without_claims(())) == ([], [])


def test_tokens_are_judged_before_what_judges_by_them_and_change_the_http_listener_alone() -> None:
    def listeners(*tokens: JwtRule) -> dict[str, Any]:
        found = resources(view(front(ports=(HTTP, FrontPort(9000, Protocol.TCP)), tokens=tokens)))
        return {name: content for url, name, content in found if url == LISTENER_TYPE}

    before, after = listeners(), listeners(RULE)
    (changed,) = [name for name in after if before[name] != after[name]]
    manager = after[changed]["filter_chains"][0]["filters"][0]["typed_config"]
    names = [one["name"] for one in manager["http_filters"]]
    place = names.index("envoy.filters.http.jwt_authn")
    assert names[place + 1 : place + 4] == ["ambient.rbac.audit", "ambient.rbac.deny", "ambient.rbac.allow"]


def test_where_tokens_are_looked_at_a_port_of_unknown_protocol_is_http_alone() -> None:
    port = FrontPort(7000, Protocol.AUTO)
    assert served(front(tokens=(RULE,)), port) == ("http",)
    assert served(front(), port) == ("http", "tcp")


def test_nobody_has_the_private_key_of_nobodys_key() -> None:
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    x, y = (int.from_bytes(base64.urlsafe_b64decode(NOBODYS_KEY[name] + "=")) for name in "xy")
    assert x == int.from_bytes(hashlib.sha256(NOBODYS_SEED.encode()).digest())
    assert y * y % prime == (x**3 - 3 * x + b) % prime


ALG_NONE = ".".join(
    base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
    for part in ({"alg": "none"}, {"iss": OURS.name, "sub": "joe", "aud": "web"}, "")
)
BAD = {
    "forged": Issuer().token(),
    "expired": OURS.token(exp=LONG_AGO),
    "of another issuer": OURS.token(iss="https://else.example.com"),
    "of the other issuer by our key": OURS.token(iss=THEIRS.name),
    "for somebody else": OURS.token(aud="db"),
    "for nobody": OURS.token(aud=None),
    "not signed": ALG_NONE,
    "no token": "garbage",
    "cut": OURS.token()[:-6],
}


@pytest.mark.parametrize("rules", [(RULE,), (RULE, OTHER), (OTHER, RULE)], ids=["one", "two", "turned"])
def test_a_good_token_passes_and_says_who_it_is_of_and_no_token_passes_and_says_nothing(
    rules: tuple[JwtRule, ...],
) -> None:
    filters = token_filters(rules)
    assert (accepted(filters, bearer(OURS.token())) or {})["sub"] == "joe"
    assert accepted(filters, Asking()) == {}


@pytest.mark.parametrize("rules", [(RULE,), (RULE, OTHER), (OTHER, RULE)], ids=["one", "two", "turned"])
@pytest.mark.parametrize("token", BAD.values(), ids=BAD)
def test_a_token_is_refused_that_is(token: str, rules: tuple[JwtRule, ...]) -> None:
    assert accepted(token_filters(rules), bearer(token)) is None


def test_a_key_too_many_would_be_noticed_here() -> None:
    forger = Issuer()
    keys = json.dumps({"keys": [*json.loads(OURS.keys)["keys"], *json.loads(forger.keys)["keys"]]})
    assert accepted(token_filters((RULE,)), bearer(forger.token())) is None
    assert accepted(token_filters((replace(RULE, keys=keys),)), bearer(forger.token()))


def test_each_rule_looks_where_it_says_and_nowhere_else() -> None:
    filters = token_filters((RULE, OTHER))
    good = THEIRS.token(aud=None)
    assert accepted(filters, Asking({"x-token": good}))
    assert accepted(filters, Asking({"cookie": f"a=b; t={good}"}))
    assert accepted(filters, Asking(query=f"access_token={OURS.token()}"))
    assert accepted(filters, bearer(good)) is None
    assert accepted(filters, Asking({"x-token": OURS.token()})) is None
    assert accepted(filters, Asking({"x-other": "garbage"})) == {}


def test_a_good_token_is_no_cover_for_a_forged_one_beside_it() -> None:
    for rules in ((RULE, OTHER), (OTHER, RULE)):
        filters = token_filters(rules)
        ours, theirs = OURS.token(), THEIRS.token()
        said = accepted(filters, Asking({"x-token": theirs, **bearer(ours).headers}))
        assert (said or {})["iss"] == rules[0].issuer
        assert accepted(filters, Asking({"x-token": theirs, **bearer(Issuer().token()).headers})) is None
        assert accepted(filters, Asking({"x-token": Issuer(THEIRS.name).token(), **bearer(ours).headers})) is None


def test_rules_that_look_in_the_same_places_are_alternatives_by_however_many_others() -> None:
    def rule(**places: tuple[str, ...]) -> JwtRule:
        return JwtRule(issuer="a", **{f"from_{kind}": names for kind, names in places.items()})  # type: ignore[arg-type]

    (made,) = token_filters((rule(params=("a",)), rule(cookies=("c",)), rule(params=("b",)), rule(params=("b", "a"))))
    groups = made["typed_config"]["rules"][0]["requires"]["requires_all"]["requirements"]
    names = [[one.get("provider_name") for one in group["requires_any"]["requirements"]] for group in groups]
    assert names == [["rule-1", None], ["rule-0", "rule-2", "rule-3", None]]  # the last judged speaks


@pytest.mark.parametrize("unusable", ["", '{"keys":[{"kty":"XX"}]}', '{"keys":[{"kty":"RSA","n":"AQ","e":"AQ"}]}'])
def test_a_rule_without_usable_keys_refuses_every_token_of_its_issuer(unusable: str) -> None:
    rule = JwtRule(issuer=OURS.name, keys=unusable, keys_url="https://issuer.example.com/keys")
    filters = token_filters((rule,))
    assert accepted(filters, bearer(OURS.token())) is None
    assert accepted(filters, Asking()) == {}
    both = token_filters((rule, OTHER))
    assert accepted(both, bearer(OURS.token())) is None
    assert accepted(both, Asking({"x-token": THEIRS.token()}))


def test_of_a_key_only_what_is_read_of_it_goes_to_the_proxies() -> None:
    key = {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "private", "x5c": ["a"], "kid": 3}
    (made,) = token_filters((JwtRule(issuer="a", keys=json.dumps({"keys": [key]})),))
    given = json.loads(made["typed_config"]["providers"]["rule-0"]["local_jwks"]["inline_string"])
    assert given["keys"] == [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, NOBODYS_KEY]


def test_headers_that_only_a_token_may_fill_are_taken_from_each_request_first() -> None:
    rules = (
        JwtRule(issuer="a", claim_headers=(("X-Sub", "sub"),), payload_header="x-payload"),
        JwtRule(issuer="b", claim_headers=(("x-sub", "sub"),)),
    )
    (early,) = without_claims(rules)
    assert early["typed_config"]["mutations"] == [{"remove": "x-payload"}, {"remove": "x-sub"}]
    made = resources(view(front(ports=(HTTP,), tokens=rules)))
    (chain,) = [one for _, name, one in made if name.startswith("service|80") and "filter_chains" in one]
    manager = chain["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["early_header_mutation_extensions"] == [early]


WHO = Source(request_principals=(f"{OURS.name}/joe",))
ADMIN = PolicyRule(sources=(WHO,), when=(When(key="request.auth.claims[role]", values=("admin",)),))


def passes(asking: Asking, *policies: Policy) -> bool:
    """Through both filters, as they stand."""
    made = front(*policies, tokens=(RULE, OTHER))
    claims = accepted(token_filters(made.tokens), asking)
    if claims is None:
        return False
    request = Request("spiffe://cluster.local/ns/shop/sa/client", claims=claims)
    return allowed(http_filters(view(made), made, HTTP), request)


@pytest.mark.parametrize(
    ("asking", "passing"),
    [
        (bearer(OURS.token(role="admin")), True),
        (bearer(OURS.token(role=["user", "admin"])), True),
        (bearer(OURS.token(role="user")), False),
        (bearer(OURS.token()), False),
        (bearer(OURS.token(role="admin", sub="ann")), False),
        (Asking({"x-token": THEIRS.token(role="admin")}), False),
        (bearer(Issuer().token(role="admin")), False),
        (Asking(), False),
        (Asking({"x-role": "admin"}), False),
    ],
)
def test_a_rule_by_claims_lets_in_whom_a_believed_token_speaks_for(asking: Asking, passing: bool) -> None:
    assert passes(asking, policy("admins", "ALLOW", ADMIN)) is passing


def test_who_has_no_token_can_be_refused() -> None:
    nobody = policy("nobody", "DENY", PolicyRule(sources=(Source(not_request_principals=("*",)),)))
    assert passes(bearer(OURS.token()), nobody)
    assert not passes(Asking(), nobody)
