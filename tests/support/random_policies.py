"""AuthorizationPolicies and RequestAuthentications, drawn at random: every field, in every place it may stand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from tests.support.builders import raw
from tests.support.random_words import HEADERS, PARTS, Words
from tests.support.waypoint_records import policy
from tests.support.waypoint_views import KEYS, OFF_THE_CURVE

_CLAIMS: Final = ("sub", "scope", "org][team", "groups", "a b", "\u00e9", "x.y")


class Policies:
    """Of what `target` is, a targetRef; `name` is what theirs begin with."""

    def __init__(self, words: Words, name: str, target: dict[str, str]) -> None:
        self._words = words
        self._rng = words.rng
        self._name = name
        self._target = target

    def policy(self, number: int) -> dict[str, Any]:
        rng = self._rng
        action = rng.choice(("ALLOW", "ALLOW", "DENY", "DENY", "AUDIT", "CUSTOM"))
        spec: dict[str, Any] = {"rules": [self._rule() for _ in range(rng.choice((0, 1, 2, 5)))]}
        if action == "CUSTOM":
            spec["provider"] = {"name": rng.choice(("by-grpc", "by-http", "nobody"))}
        made = policy(f"{self._name}-p{number}", action, self._target, **spec)
        if rng.random() < 0.2:
            made["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
        return made

    def _rule(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if self._rng.random() < 0.6:
            made["from"] = [{"source": self._some(self._sources(), 2)} for _ in range(self._rng.randint(1, 2))]
        if self._rng.random() < 0.7:
            made["to"] = [{"operation": self._some(self._operations(), 3)} for _ in range(self._rng.randint(1, 2))]
        if self._rng.random() < 0.5:
            made["when"] = [self._when() for _ in range(self._rng.randint(1, 2))]
        return made

    def _some(self, fields: dict[str, Callable[[], Any]], most: int) -> dict[str, list[Any]]:
        rng = self._rng
        chosen = rng.sample(sorted(fields), rng.randint(1, most))
        return {name: [fields[name]() for _ in range(rng.randint(1, 3))] for name in chosen}

    def _sources(self) -> dict[str, Callable[[], Any]]:
        rng = self._rng
        known = ("cluster.local/ns/shop/sa/web", "*/sa/x", "*", "other.td/*")
        principal = lambda: rng.choice((*known, self._words.text()))  # noqa: E731
        token = lambda: rng.choice(("*", "https://i.example.com/joe", "*/joe", "iss/*", "a*/b", self._words.text()))  # noqa: E731
        block = lambda: rng.choice(("10.1.0.0/16", "10.1.2.3", "fd00::/8", "0.0.0.0/0", "::/0", "::ffff:1.2.3.4"))  # noqa: E731
        made: dict[str, Callable[[], Any]] = {}
        for title, draw in (
            ("principals", principal),
            ("requestPrincipals", token),
            ("namespaces", self._words.glob),
            ("ipBlocks", block),
            ("remoteIpBlocks", block),
            ("trustDomains", self._words.glob),
        ):
            made[title] = draw
            made[f"not{title[0].upper()}{title[1:]}"] = draw
        return made

    def _operations(self) -> dict[str, Callable[[], Any]]:
        rng = self._rng
        port = lambda: rng.choice(("80", "443", "65535"))  # noqa: E731
        method = lambda: rng.choice(("GET", "P*", "*", self._words.glob()))  # noqa: E731
        path = lambda: rng.choice((*PARTS, "/a/*", "*.js", "*", "/u/{*}/c", "/{**}", "{*}" * 300, self._words.glob()))  # noqa: E731
        made: dict[str, Callable[[], Any]] = {}
        for title, draw in (("hosts", self._words.glob), ("ports", port), ("methods", method), ("paths", path)):
            made[title] = draw
            made[f"not{title[0].upper()}{title[1:]}"] = draw
        return made

    def _when(self) -> dict[str, Any]:
        rng = self._rng
        values: dict[str, Callable[[], str]] = {
            f"request.headers[{rng.choice(HEADERS)}]": self._words.glob,
            f"request.headers[{self._words.text(20)}]": self._words.glob,
            f"request.auth.claims[{rng.choice(_CLAIMS)}]": self._words.glob,
            f"request.auth.claims[{self._words.text(20)}]": self._words.glob,
            "request.auth.principal": lambda: rng.choice(("*", "i/s", self._words.glob())),
            "request.auth.audiences": self._words.glob,
            "request.auth.presenter": self._words.glob,
            "source.namespace": self._words.glob,
            "source.principal": self._words.glob,
            "source.serviceAccount": lambda: rng.choice(("web", "shop/web", "a.b")),
            "source.trustDomain": self._words.glob,
            "source.ip": lambda: "10.0.0.0/8",
            "remote.ip": lambda: "fd00::1",
            "destination.ip": lambda: "10.96.0.0/16",
            "destination.port": lambda: "80",
            "connection.sni": self._words.glob,
            "experimental.envoy.filters.a.b[c]": self._words.glob,
        }
        key = rng.choice(sorted(values))
        sides = rng.choice((["values"], ["notValues"], ["values", "notValues"]))
        return {"key": key, **{side: [values[key]() for _ in range(rng.randint(1, 2))] for side in sides}}

    # --- tokens

    def tokens(self, number: int) -> dict[str, Any]:
        rng = self._rng
        spec = {
            "targetRefs": [{"group": "", **self._target}],
            "jwtRules": [self._jwt_rule() for _ in range(rng.randint(1, 3))],
        }
        made = raw("RequestAuthentication", f"{self._name}-t{number}", spec, namespace="shop")
        return {**made, "apiVersion": "security.istio.io/v1"}

    def _jwt_rule(self) -> dict[str, Any]:
        rng = self._rng
        odd = {
            "kty": rng.choice(("RSA", "EC", "OKP", "oct", "new")),
            **{name: "AQAB" for name in "nexyk"},
            "crv": "P-521",
        }
        keys = rng.choice(
            (KEYS, OFF_THE_CURVE, json.dumps({"keys": [odd, {**odd, "kid": 1, "alg": self._words.text(9)}]}))
        )
        made: dict[str, Any] = {"issuer": rng.choice(("https://i.example.com", self._words.text(40)))}
        made[rng.choice(("jwks", "jwks", "jwksUri"))] = keys
        if "jwksUri" in made:
            made["jwksUri"] = "https://i.example.com/keys"
        claim = lambda: rng.choice(("sub", "a.b", self._words.text(9)))  # noqa: E731
        header = lambda: rng.choice(("x-token", "authorization", "X-A!", self._words.text(9)))  # noqa: E731
        fields: dict[str, Callable[[], Any]] = {
            "audiences": lambda: [self._words.text(20)],
            "fromHeaders": lambda: [{"name": header(), "prefix": rng.choice(("", "Bearer ", self._words.text(9)))}],
            "fromParams": lambda: [self._words.text(9)],
            "fromCookies": lambda: [self._words.text(9)],
            "forwardOriginalToken": lambda: True,
            "outputPayloadToHeader": header,
            "outputClaimToHeaders": lambda: [{"header": header(), "claim": claim()}],
            "spaceDelimitedClaims": lambda: [self._words.text(9)],
        }
        for name in rng.sample(sorted(fields), rng.randint(0, 3)):
            made[name] = fields[name]()
        return made
