"""What a request's token says, as Envoy RBAC principals. Pure.

The token filter leaves the claims of a token that it has accepted in its dynamic metadata, under `PAYLOAD`.
"""

from __future__ import annotations

import re
from typing import Final

from ambient.waypoint.typed import Message

JWT_FILTER: Final = "envoy.filters.http.jwt_authn"
PAYLOAD: Final = "payload"
_PATH: Final = re.compile(r"\[([^\[\]]+)\]")
_MOST_SLASHES: Final = 32
"""Of a request's principal: each of them makes a pair of its own, as long as the value."""


class CannotSay(Exception):
    """Nothing that Envoy knows says this."""


def request_principal(value: str, *, closes: bool = False) -> Message:
    """ "<issuer>/<subject>", with * for the whole, the issuer or the subject; raises CannotSay for other forms.

    Both may hold a slash. What opens ends the issuer at the last one, as Istio does; what closes means every issuer
    and subject that the value may stand for."""
    if value == "*":
        return _both(_text("*", "iss"), _text("*", "sub"))
    issuer, slash, subject = value.rpartition("/")
    if not slash or "*" in issuer.strip("*") or ("*" in issuer and issuer != "*"):
        raise CannotSay
    if "*" in subject and subject != "*":
        raise CannotSay
    if not closes:
        return _both(_text(issuer, "iss"), _text(subject, "sub"))
    ends = [at for at, sign in enumerate(value) if sign == "/"]
    if len(ends) > _MOST_SLASHES:
        raise CannotSay
    pairs = [_both(_text(value[:at], "iss"), _text(value[at + 1 :], "sub")) for at in ends]
    return pairs[0] if len(pairs) == 1 else {"or_ids": {"ids": pairs}}


def claim(key: str, value: str, *, closes: bool = False) -> Message:
    """A `when` key about the token; raises CannotSay for any other key."""
    if key == "request.auth.principal":
        return request_principal(value, closes=closes)
    if key == "request.auth.audiences":
        return _either(value, "aud")
    if key == "request.auth.presenter":
        return _text(value, "azp")
    if key.startswith("request.auth.claims["):
        return _either(value, *_PATH.findall(key))
    raise CannotSay


def _both(one: Message, other: Message) -> Message:
    return {"and_ids": {"ids": [one, other]}}


def _either(value: str, *path: str) -> Message:
    """The claim is this text, or a list with it."""
    listed = {"list_match": {"one_of": {"string_match": _pattern(value)}}}
    return {"or_ids": {"ids": [_text(value, *path), _at(path, listed)]}}


def _text(value: str, *path: str) -> Message:
    return _at(path, {"string_match": _pattern(value)})


def _at(path: tuple[str, ...], value: Message) -> Message:
    matcher = {"filter": JWT_FILTER, "path": [{"key": PAYLOAD}, *({"key": part} for part in path)], "value": value}
    return {"sourced_metadata": {"metadata_source": "DYNAMIC", "metadata_matcher": matcher}}


def _pattern(value: str) -> Message:
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        return {"suffix": value[1:]}
    return {"prefix": value[:-1]} if value.endswith("*") else {"exact": value}
