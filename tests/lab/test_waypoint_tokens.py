"""Tokens at a waypoint: what a RequestAuthentication believes and refuses, and rules by what tokens say.

Real Envoy, real ztunnels, tokens that are really signed. Each refusal has beside it the same request that passes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ambient.kube.objects import RequestAuthentication
from tests.support.lab import LabUnderTest, object_yaml, until
from tests.support.tokens import LONG_AGO, Issuer
from tests.support.waypoint_lab import (
    GATEWAY_VERSION,
    POLICY_VERSION,
    WEB,
    apply,
    delete_policies,
    echo,
    policy_yaml,
    ready,
    status,
    waypoint_lab,
)

OURS = Issuer()
PARTNER = Issuer("https://partner.example.com")
FETCHED = Issuer("https://fetched.example.com")
RULES = (
    {
        "issuer": OURS.name,
        "audiences": ["web"],
        "jwks": OURS.keys,
        "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}, {"header": "x-role", "claim": "role"}],
    },
    {
        "issuer": PARTNER.name,
        "jwks": PARTNER.keys,
        "fromHeaders": [{"name": "x-token", "prefix": "Token "}],
        "fromParams": ["token"],
        "fromCookies": ["session"],
        "forwardOriginalToken": True,
    },
    {"issuer": FETCHED.name, "jwksUri": "https://fetched.example.com/keys"},
)


def tokens_yaml(*rules: dict[str, Any], name: str = "tokens", target: str = "web", kind: str = "Service") -> str:
    ref = {"group": "" if kind == "Service" else "gateway.networking.k8s.io", "kind": kind, "name": target}
    spec = {"targetRefs": [ref], "jwtRules": list(rules)}
    return object_yaml(POLICY_VERSION, "RequestAuthentication", name, "shop", spec=spec)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with waypoint_lab(tokens_yaml(*RULES)) as lab:
        yield lab


@pytest.fixture(autouse=True)
def no_policies(lab: LabUnderTest) -> Iterator[None]:
    yield
    delete_policies(lab)


def bearer(token: str) -> list[str]:
    return ["-H", f"authorization: Bearer {token}"]


def answer(lab: LabUnderTest, *words: str, url: str = WEB) -> int:
    return status(lab, "shop/client", *words, url=url)


BAD = {
    "forged": Issuer().token(),
    "expired": OURS.token(exp=LONG_AGO),
    "of another issuer": OURS.token(iss="https://else.example.com"),
    "of the partner by our key": OURS.token(iss=PARTNER.name),
    "no token": "garbage",
    "of an issuer whose keys cannot be fetched": FETCHED.token(),
}
NOT_FOR_US = {"for somebody else": OURS.token(aud="db"), "for nobody": OURS.token(aud=None)}


def test_a_request_without_a_token_passes_and_so_does_one_with_a_good_one(lab: LabUnderTest) -> None:
    assert (answer(lab), answer(lab, *bearer(OURS.token()))) == (200, 200)


@pytest.mark.parametrize("token", BAD.values(), ids=BAD)
def test_a_token_is_refused_that_is(lab: LabUnderTest, token: str) -> None:
    assert answer(lab, *bearer(token)) == 401
    assert answer(lab, *bearer(OURS.token())) == 200


@pytest.mark.parametrize("token", NOT_FOR_US.values(), ids=NOT_FOR_US)
def test_a_good_token_is_forbidden_that_is(lab: LabUnderTest, token: str) -> None:
    assert answer(lab, *bearer(token)) == 403


def test_a_good_token_is_no_cover_for_a_forged_one_beside_it(lab: LabUnderTest) -> None:
    theirs = ["-H", f"x-token: Token {PARTNER.token()}"]
    assert answer(lab, *theirs, *bearer(OURS.token())) == 200
    assert answer(lab, *theirs, *bearer(Issuer().token())) == 401
    assert answer(lab, *bearer(OURS.token()), url=f"{WEB}?token={Issuer(PARTNER.name).token()}") == 401


def test_of_two_good_tokens_the_earlier_rules_speaks_and_nothing_is_mixed_with_the_other(lab: LabUnderTest) -> None:
    def both(ours: dict[str, str], partners: dict[str, str]) -> int:
        theirs = f"x-token: Token {PARTNER.token(**partners)}"
        return answer(lab, "-H", theirs, *bearer(OURS.token(**ours)))

    of_partner = {"from": [{"source": {"requestPrincipals": [f"{PARTNER.name}/joe"]}}]}
    apply(lab, policy_yaml("partner", "ALLOW", of_partner))
    assert both({}, {}) == 403
    apply(lab, policy_yaml("partner", "ALLOW", {"when": [{"key": "request.auth.claims[role]", "values": ["admin"]}]}))
    assert both({"role": "admin"}, {}) == 200
    assert both({}, {"role": "admin"}) == 403


def test_a_token_is_found_where_its_rule_says(lab: LabUnderTest) -> None:
    good, forged = PARTNER.token(), Issuer(PARTNER.name).token()
    for words in (["-H", "x-token: Token {}"], ["-H", "cookie: a=b; session={}"]):
        assert answer(lab, *(word.format(good) for word in words)) == 200
        assert answer(lab, *(word.format(forged) for word in words)) == 401
    assert answer(lab, url=f"{WEB}?token={good}") == 200
    assert answer(lab, url=f"{WEB}?token={forged}") == 401
    assert answer(lab, *bearer(good)) == 401


def test_the_application_hears_the_claims_and_no_token_but_one_that_is_to_be_forwarded(lab: LabUnderTest) -> None:
    forged = ["-H", "x-sub: admin", "-H", "X-Role: admin"]
    heard = echo(lab, "shop/client", *bearer(OURS.token()), *forged)["headers"]
    assert heard["x-sub"] == "joe"
    assert not {"x-role", "authorization"} & heard.keys()
    heard = echo(lab, "shop/client", *forged)["headers"]
    assert not {"x-sub", "x-role"} & heard.keys()
    good = f"Token {PARTNER.token()}"
    heard = echo(lab, "shop/client", "-H", f"x-token: {good}", *forged)["headers"]
    assert heard["x-token"] == good
    assert not {"x-sub", "x-role"} & heard.keys()


def route_yaml(name: str, limits: str, **match: Any) -> str:
    ref = {"group": "", "kind": "Service", "name": "web"}
    rule = {"matches": [match], "backendRefs": [{"name": "web", "port": 80}]}
    notes = {"ambient.mesh/rate-limit": limits} if limits else {}
    spec = {"parentRefs": [{**ref, "port": 80}], "rules": [rule]}
    return object_yaml(GATEWAY_VERSION, "HTTPRoute", name, "shop", annotations=notes, spec=spec)


def test_a_limit_holds_on_a_route_that_is_chosen_by_what_a_token_says(lab: LabUnderTest) -> None:
    """The route that is chosen first, by what the client sent, has none."""
    admins = route_yaml("admins", "1/h", headers=[{"name": "x-role", "value": "admin"}])
    others = route_yaml("others", "", path={"type": "PathPrefix", "value": "/"})
    apply(lab, admins + others)
    try:
        admin = bearer(OURS.token(role="admin"))
        until("the limit is in force", lambda: answer(lab, *admin) == 429)
        assert [answer(lab, *admin), answer(lab, *bearer(OURS.token())), answer(lab)] == [429, 200, 200]
    finally:
        lab.delete(admins + others)
        ready(lab)


def test_a_rule_that_demands_a_principal_refuses_those_without(lab: LabUnderTest) -> None:
    rule = {"from": [{"source": {"requestPrincipals": [f"{OURS.name}/joe"]}}]}
    apply(lab, policy_yaml("joe", "ALLOW", rule))
    assert answer(lab, *bearer(OURS.token())) == 200
    assert answer(lab, *bearer(OURS.token(sub="ann"))) == 403
    assert answer(lab, *bearer(Issuer().token())) == 401
    assert answer(lab, "-H", f"x-token: Token {PARTNER.token()}") == 403
    assert answer(lab) == 403
    apply(lab, policy_yaml("joe", "DENY", {"from": [{"source": {"notRequestPrincipals": ["*"]}}]}))
    assert (answer(lab, *bearer(OURS.token())), answer(lab)) == (200, 403)


def test_a_deny_by_principal_finds_a_subject_with_slashes(lab: LabUnderTest) -> None:
    rule = {"from": [{"source": {"requestPrincipals": [f"{OURS.name}/repo:org/app"]}}]}
    apply(lab, policy_yaml("app", "DENY", rule))
    answers = [answer(lab, *bearer(OURS.token(sub=subject))) for subject in ("repo:org/app", "repo:org/other", "app")]
    assert answers == [403, 200, 200]


CLAIMS: dict[str, tuple[str, list[str], dict[str, Any], dict[str, Any]]] = {
    "text": ("request.auth.claims[role]", ["admin"], {"role": "admin"}, {"role": "user"}),
    "list": ("request.auth.claims[groups]", ["ops"], {"groups": ["dev", "ops"]}, {"groups": ["dev"]}),
    "nested": ("request.auth.claims[org][team]", ["red"], {"org": {"team": "red"}}, {"team": "red"}),
    "scope": ("request.auth.claims[scope]", ["write"], {"scope": "read write"}, {"scope": "read writer"}),
    "audience": ("request.auth.audiences", ["db"], {"aud": ["web", "db"]}, {}),
    "presenter": ("request.auth.presenter", ["app"], {"azp": "app"}, {"azp": "other"}),
    "principal": ("request.auth.principal", [f"{OURS.name}/ann"], {"sub": "ann"}, {"sub": "joe"}),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_rule_by_what_a_token_says(lab: LabUnderTest, case: str) -> None:
    key, values, good, bad = CLAIMS[case]
    apply(lab, policy_yaml("claims", "ALLOW", {"when": [{"key": key, "values": values}]}))
    assert answer(lab, *bearer(OURS.token(**good))) == 200
    assert answer(lab, *bearer(OURS.token(**bad))) == 403
    assert answer(lab) == 403


def test_what_cannot_be_fetched_is_said_of_the_rule(lab: LabUnderTest) -> None:
    def said() -> str:
        record = lab.lab.records().find(RequestAuthentication, "shop", "tokens")
        assert record is not None
        return json.dumps([one.message for one in record.conditions if one.type == "ambient.mesh/KeysFetched"])

    until("the condition", lambda: "tokens of https://fetched.example.com are refused" in said())


def test_rules_for_the_whole_gateway_come_into_force_and_go_while_it_runs(lab: LabUnderTest) -> None:
    more = Issuer("https://more.example.com")
    rule = tokens_yaml({"issuer": more.name, "jwks": more.keys}, name="more", target="waypoint", kind="Gateway")
    assert answer(lab, *bearer(more.token())) == 401
    apply(lab, rule)
    until("the new rule holds", lambda: answer(lab, *bearer(more.token())) == 200)
    assert answer(lab, *bearer(Issuer(more.name).token())) == 401
    lab.delete(rule)
    until("the rule has gone", lambda: answer(lab, *bearer(more.token())) == 401)
    assert answer(lab, *bearer(OURS.token())) == 200
