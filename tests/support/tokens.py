"""An issuer of tokens, and the filter that judges them as Envoy documents it, read from our own output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "https://issuer.example.com"
FAR_FUTURE = 4_000_000_000
LONG_AGO = 1_000_000_000


@dataclass(frozen=True)
class Issuer:
    """One with a key of its own."""

    name: str = ISSUER
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def keys(self) -> str:
        public = jwt.get_algorithm_by_name("ES256").to_jwk(self.key.public_key(), as_dict=True)
        return json.dumps({"keys": [{**public, "use": "sig"}]})

    def token(self, **claims: Any) -> str:
        """Good until changed; a claim of None is left out."""
        every = {"iss": self.name, "sub": "joe", "aud": "web", "exp": FAR_FUTURE, **claims}
        said = {name: value for name, value in every.items() if value is not None}
        return jwt.encode(said, self.key, algorithm="ES256")


@dataclass(frozen=True)
class Asking:
    """A request: its headers, and what stands behind the question mark."""

    headers: Mapping[str, str] = field(default_factory=dict)
    query: str = ""


class _Refused(Exception):
    """By one requirement."""


def bearer(token: str) -> Asking:
    return Asking({"authorization": f"Bearer {token}"})


def accepted(filters: list[dict[str, Any]], asking: Asking) -> dict[str, Any] | None:
    """What the accepted token says, {} without any; None: a 401."""
    if not filters:
        return {}
    config = filters[0]["typed_config"]
    (rule,) = config["rules"]
    assert rule["match"] == {"prefix": "/"}
    try:
        return _judge(rule["requires"], config["providers"], asking)
    except _Refused:
        return None


def _judge(requires: Mapping[str, Any], providers: Mapping[str, Any], asking: Asking) -> dict[str, Any]:
    ((kind, value),) = requires.items()
    match kind:
        case "provider_name":
            tokens = _tokens(providers[value], asking)
            if not tokens:
                raise _Refused
            return [_verified(providers[value], token) for token in tokens][-1]
        case "allow_missing":
            found = [token for one in providers.values() for token in _tokens(one, asking)]
            said = [_of_any(providers, token, asking) for token in found]
            return said[-1] if said else {}
        case "requires_all":
            judged = [_judge(one, providers, asking) for one in value["requirements"]]
            return next((one for one in reversed(judged) if one), {})
        case "requires_any":
            for one in value["requirements"]:
                try:
                    return _judge(one, providers, asking)
                except _Refused:
                    continue
            raise _Refused
    raise AssertionError(kind)


def _of_any(providers: Mapping[str, Any], token: str, asking: Asking) -> dict[str, Any]:
    for one in providers.values():
        try:
            if token in _tokens(one, asking):
                return _verified(one, token)
        except _Refused:
            continue
    raise _Refused


def _tokens(provider: Mapping[str, Any], asking: Asking) -> list[str]:
    found = []
    for header in provider.get("from_headers", ()):
        text = asking.headers.get(header["name"].lower(), "")
        prefix = header.get("value_prefix", "")
        if text and text.startswith(prefix):
            found.append(text.removeprefix(prefix))
    given = parse_qs(asking.query)
    found += [given[name][0] for name in provider.get("from_params", ()) if name in given]
    cookies = dict(one.strip().partition("=")[::2] for one in asking.headers.get("cookie", "").split(";"))
    return found + [cookies[name] for name in provider.get("from_cookies", ()) if name in cookies]


def _verified(provider: Mapping[str, Any], token: str) -> dict[str, Any]:
    for key in json.loads(provider["local_jwks"]["inline_string"])["keys"]:
        try:
            public = jwt.PyJWK(key)
            options: Any = {"verify_aud": "audiences" in provider, "verify_sub": False}
            said: dict[str, Any] = jwt.decode(
                token,
                public,
                algorithms=["ES256"],
                issuer=provider["issuer"],
                audience=provider.get("audiences"),
                options=options,
            )
        except (jwt.PyJWTError, ValueError):
            continue
        return said
    raise _Refused
