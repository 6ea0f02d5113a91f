"""One jwtRules entry of a RequestAuthentication: whose tokens are believed, where they stand, what is told of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from ambient.kube import syntax
from ambient.kube.read import Field, Object

SPACE_DELIMITED: Final = ("scope", "permission")
"""Claims that are made lists of what stands between blanks, whatever a rule says."""
_RULE: Final = syntax.words(
    "issuer audiences jwksUri jwks jwks_uri fromHeaders fromParams fromCookies outputPayloadToHeader"
    " forwardOriginalToken outputClaimToHeaders timeout spaceDelimitedClaims"
)
_MOST_RULES: Final = 50
_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "RSA": ("n", "e"),
    "EC": ("crv", "x", "y"),
    "OKP": ("crv", "x"),
    "oct": ("k",),
}
"""RFC 7518 section 6, RFC 8037: what a key of each type has."""
_PROXYS: Final = frozenset(
    syntax.words(
        "host cookie connection content-length te transfer-encoding upgrade x-forwarded-for x-forwarded-client-cert"
    )
)
_BASE64URL: Final = re.compile(r"[-_0-9A-Za-z]+={0,2}")
_PRINTABLE: Final = re.compile(r"[ -~\t]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtRule:
    """`keys` is the key set as JSON, "" when none is written here; `keys_url` is where it is to be fetched from, ""
    when nowhere. `from_headers` are (name, what stands before the token), `claim_headers` (header, claim)."""

    issuer: str
    audiences: tuple[str, ...] = ()
    keys: str = ""
    keys_url: str = ""
    from_headers: tuple[tuple[str, str], ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    forward: bool = False
    payload_header: str = ""
    claim_headers: tuple[tuple[str, str], ...] = ()
    space_delimited: tuple[str, ...] = ()

    @property
    def told_headers(self) -> tuple[str, ...]:
        """Headers, in small letters, that say something of the token to the application."""
        named = (*(header for header, _ in self.claim_headers), self.payload_header)
        return tuple(header.lower() for header in named if header)

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Those that a token is looked for in, as `from_headers`: where no place is given, the usual one."""
        return self.from_headers if self._placed else (("authorization", "Bearer "),)

    @property
    def params(self) -> tuple[str, ...]:
        """Query parameters that a token is looked for in."""
        return self.from_params if self._placed else ("access_token",)

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """Everything that a token is looked for in: (header, param or cookie, its name)."""
        return (
            *(("header", name.lower()) for name, _ in self.headers),
            *(("param", name) for name in self.params),
            *(("cookie", name) for name in self.from_cookies),
        )

    @property
    def _placed(self) -> bool:
        return bool(self.from_headers or self.from_params or self.from_cookies)


def read_jwt_rules(spec: Object) -> tuple[JwtRule, ...]:
    """`jwtRules` of a spec; raises InvalidInput. Several rules may be about one issuer: a token has to fit one."""
    rules = spec.each("jwtRules", _rule)
    if len(rules) > _MOST_RULES:
        raise spec.need("jwtRules").refuse(f"at most {_MOST_RULES} entries")
    sources = {name for rule in rules for kind, name in rule.places if kind == "header"} | _PROXYS
    for rule in rules:
        for header in rule.told_headers:
            if header in sources:
                raise spec.need("jwtRules").refuse(
                    f"header {header!r} is read by the proxy, no claim can be told in it"
                )
    return rules


def _rule(field: Field) -> JwtRule:
    entry = field.object(_RULE)
    issuer = entry.need("issuer").text()
    if not issuer:
        raise entry.need("issuer").refuse("an empty issuer matches nothing")
    sources = entry.present("jwks", "jwksUri", "jwks_uri")
    if len(sources) > 1:
        raise entry.need(sources[1]).refuse(f"may not stand beside {sources[0]}")
    url = entry.read("jwksUri", lambda f: f.checked(_url), "") or entry.read("jwks_uri", lambda f: f.checked(_url), "")
    return JwtRule(
        issuer=issuer,
        audiences=entry.each("audiences", lambda f: f.checked(_named("audience"))),
        keys=entry.read("jwks", lambda f: f.checked(key_set_complaint), ""),
        keys_url=url,
        from_headers=entry.each("fromHeaders", _token_header),
        from_params=entry.each("fromParams", lambda f: f.checked(_named("parameter"))),
        from_cookies=entry.each("fromCookies", lambda f: f.checked(_named("cookie"))),
        forward=entry.flag("forwardOriginalToken"),
        payload_header=entry.read("outputPayloadToHeader", lambda f: f.checked(syntax.header_name), ""),
        claim_headers=entry.each("outputClaimToHeaders", _claim_header),
        space_delimited=entry.each("spaceDelimitedClaims", lambda f: f.checked(_named("claim"))),
    )


def _named(what: str) -> Any:
    article = "an" if what[0] in "aeiou" else "a"
    return lambda text: "" if text else f"{article} {what} without a name matches nothing"


def _token_header(field: Field) -> tuple[str, str]:
    entry = field.object(("name", "prefix"))
    prefix = entry.read("prefix", lambda f: f.checked(_header_value), "")
    return entry.need("name").checked(syntax.header_name), prefix


def _claim_header(field: Field) -> tuple[str, str]:
    entry = field.object(("header", "claim"))
    return entry.need("header").checked(syntax.header_name), entry.need("claim").checked(_named("claim"))


def _header_value(value: str) -> str:
    return "" if _PRINTABLE.fullmatch(value) else f"{value!r} cannot stand in a header"


def _url(value: str) -> str:
    return "" if value.startswith(("https://", "http://")) else f"{value!r} is not an http or https URL"


def key_set_complaint(value: str) -> str:
    """Why a text is no key set (RFC 7517, section 5), "" when it is one."""
    try:
        decoded = json.loads(value, parse_constant=_no_number)
        json.dumps(decoded, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return "is not JSON"
    keys = decoded.get("keys") if isinstance(decoded, dict) else None
    if not isinstance(keys, list):
        return "is not a set of keys"
    if not keys:
        return "holds no key"
    complaints = (complaint for number, key in enumerate(keys) if (complaint := _key(f"keys[{number}]", key)))
    return next(complaints, "")


def _no_number(text: str) -> NoReturn:
    raise ValueError(text)


def _key(where: str, key: Any) -> str:
    """A complaint. Key types that nobody here knows may stand beside others."""
    if not isinstance(key, dict) or not isinstance(key.get("kty"), str):
        return f"{where} is no key: it has no kty"
    for name in _MEMBERS.get(key["kty"], ()):
        member = key.get(name)
        if not isinstance(member, str) or not _BASE64URL.fullmatch(member):
            return f"{where}.{name} is missing or no base64url"
    return ""
