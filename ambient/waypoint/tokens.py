"""RequestAuthentications as Envoy's token filter: whose tokens are believed, and what is told of them. Pure.

A request without a token passes, one with a token that fits no rule gets a 401. What an accepted token says is left
where `rbac_claims` looks for it; who has to have one is the policies' affair.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ambient.kube.jwt_rules import SPACE_DELIMITED, JwtRule
from ambient.waypoint.rbac_claims import JWT_FILTER, PAYLOAD
from ambient.waypoint.typed import Message, typed

NOBODYS_SEED: Final = "nobody has the private key of this point 0"
NOBODYS_KEY: Final = {
    "kty": "EC",
    "crv": "P-256",
    "x": "WFQb12wEMcz_onl5kjbUhrxSKtBUCiGCptEtrb_Vxhk",
    "y": "1mS1IIati1_uoYgGUecd0iAnp73Bn9IFhOpdorCzNro",
}
"""A point of the curve made of the hash of a text, so nobody knows its private key. It stands in every key set: one in
which Envoy can use no key would make it refuse the whole listener, and so keep the one before, without these rules."""
_MEMBERS: Final = ("kty", "alg", "use", "kid", "crv", "n", "e", "x", "y", "k")
_FILTER: Final = "filters.http.jwt_authn.v3.JwtAuthentication"


def token_filters(rules: Sequence[JwtRule]) -> list[Message]:
    """The filter, [] when there are no rules. It stands before those that judge by claims."""
    if not rules:
        return []
    named = {f"rule-{number}": rule for number, rule in enumerate(rules)}
    providers = {name: _provider(rule) for name, rule in named.items()}
    requires = _requires(named)
    return [typed(JWT_FILTER, _FILTER, providers=providers, rules=[{"match": {"prefix": "/"}, "requires": requires}])]


def without_claims(rules: Iterable[JwtRule]) -> list[Message]:
    """What takes from each request, before a route is chosen for it, the headers that only a token may fill; [] when
    there are none."""
    headers = sorted({header for rule in rules for header in rule.told_headers})
    if not headers:
        return []
    mutation = "http.early_header_mutation.header_mutation.v3.HeaderMutation"
    return [typed("ambient.claims", mutation, mutations=[{"remove": header} for header in headers])]


def _provider(rule: JwtRule) -> Message:
    made: Message = {
        "issuer": rule.issuer,
        "local_jwks": {"inline_string": _keys(rule.keys)},
        "forward": rule.forward,
        "payload_in_metadata": PAYLOAD,
        "normalize_payload_in_metadata": {
            "space_delimited_claims": list(dict.fromkeys((*SPACE_DELIMITED, *rule.space_delimited)))
        },
    }
    if rule.audiences:
        made["audiences"] = list(rule.audiences)
    if rule.headers:
        made["from_headers"] = [{"name": name, **_prefixed(prefix)} for name, prefix in rule.headers]
    if rule.params:
        made["from_params"] = list(rule.params)
    if rule.from_cookies:
        made["from_cookies"] = list(rule.from_cookies)
    if rule.payload_header:
        made["forward_payload_header"] = rule.payload_header
    if rule.claim_headers:
        made["claim_to_headers"] = [
            {"header_name": header, "claim_name": claim} for header, claim in rule.claim_headers
        ]
    if rule.told_headers:
        made["clear_route_cache"] = True  # routes may ask for what was told
    return made


def _prefixed(prefix: str) -> Message:
    return {"value_prefix": prefix} if prefix else {}


def _keys(written: str) -> str:
    """The key set that Envoy is given: what it reads of each key, and nobody's. Keys that are only to be found at a
    URL are not fetched: then nobody's stands alone, and every token is refused."""
    listed = json.loads(written)["keys"] if written else []
    keys = [{name: key[name] for name in _MEMBERS if isinstance(key.get(name), str)} for key in listed]
    return json.dumps({"keys": [*keys, NOBODYS_KEY]}, separators=(",", ":"))


def _requires(rules: Mapping[str, JwtRule]) -> Message:
    """Of rules that look in the same places a token has to fit one, and so at each of several places where one is: a
    good token is no cover for a forged one beside it. Of several good ones the last that is judged speaks, so the
    rules that come first are judged last."""
    each = []
    for names in reversed(_together(rules)):
        one_of = [{"provider_name": name} for name in names]
        each.append({"requires_any": {"requirements": [*one_of, {"allow_missing": {}}]}})
    return each[0] if len(each) == 1 else {"requires_all": {"requirements": each}}


def _together(rules: Mapping[str, JwtRule]) -> list[list[str]]:
    """Names of the rules, those together that have a place in common, by however many others."""
    groups: list[tuple[list[str], set[tuple[str, str]]]] = []
    for name, rule in rules.items():
        names, places = [name], set(rule.places)
        joined = [one for one in groups if one[1] & places]
        for group in joined:
            names, places = [*group[0], *names], group[1] | places
        groups = [one for one in groups if one not in joined] + [(names, places)]
    order = {name: number for number, name in enumerate(rules)}
    return sorted((sorted(names, key=order.__getitem__) for names, _ in groups), key=lambda names: order[names[0]])
