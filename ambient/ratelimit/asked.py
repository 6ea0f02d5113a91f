"""What a proxy asks, and what it is answered, as values: Envoy's messages in and out. No I/O.

What is not understood is refused, and so counts as an error at the proxy, which then does what the limit's owner chose.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ambient.errors import InvalidInput
from ambient.waypoint.limits import CLAIM, CLIENT, HEADER
from ambient.waypoint.shared_limits import DOMAIN, RATE, ROUTE
from ambient.waypoint.wire import message_class

REQUEST: Final = message_class("envoy.service.ratelimit.v3.RateLimitRequest")
RESPONSE: Final = message_class("envoy.service.ratelimit.v3.RateLimitResponse")
METHOD: Final = ("envoy.service.ratelimit.v3.RateLimitService", "ShouldRateLimit")
_OK: Final = 1
_OVER: Final = 2
_UNITS: Final = {1: 1, 60: 2, 3600: 3, 86_400: 4}
"""Of RateLimit.Unit, by seconds."""
_RATE: Final = re.compile(r"([1-9][0-9]{0,8})/(1|60|3600|86400)")
_MOST_DESCRIPTORS: Final = 8
_MOST_TEXT: Final = 4096
_MOST_HITS: Final = 1_000_000
_REST: Final = 3
"""Hexadecimal digits of a value's hash: values that are too many share 4096 counts."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One limit. `key`: of its count. All keys of one route have its name in braces: Redis keeps them in one place.
    Where it is of a value that clients may choose, `values` is the key of how many there are in this window, and `rest`
    that of the count which it shares with others when there are too many; else both are ""."""

    key: str
    count: int
    period_s: int
    values: str = ""
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """What became of one limit: how many are left of it, and in how many milliseconds it begins anew. `over`: with this
    request it would be exceeded."""

    left: int
    reset_ms: int
    over: bool


def read_request(message: Any) -> tuple[tuple[Asked, ...], int]:
    """The limits, and how many requests are to be counted; raises InvalidInput."""
    if message.domain != DOMAIN:
        raise InvalidInput("rate limit request", "domain", f"{message.domain[:40]!r} is none of ours")
    if not 1 <= len(message.descriptors) <= _MOST_DESCRIPTORS:
        raise InvalidInput("rate limit request", "descriptors", f"{len(message.descriptors)}: 1 to 8 are expected")
    hits = message.hits_addend or 1
    if hits > _MOST_HITS:
        raise InvalidInput("rate limit request", "hits_addend", f"{hits} is too many")
    return tuple(_asked(one) for one in message.descriptors), hits


def _asked(descriptor: Any) -> Asked:
    said = {entry.key: entry.value for entry in descriptor.entries}
    rate = _RATE.fullmatch(said.get(RATE, ""))
    route = said.get(ROUTE, "")
    whom = said.keys() - {RATE, ROUTE}
    known = all(key == CLIENT or key.startswith((HEADER, CLAIM)) for key in whom)
    if rate is None or not route or len(whom) > 1 or not known or len(said) != len(descriptor.entries):
        raise InvalidInput(
            "rate limit request",
            "descriptors",
            "a descriptor has a route, a rate, and perhaps a client, a header or a claim",
        )
    if any(len(one) > _MOST_TEXT for one in (route, *whom)) or "{" in route or "}" in route:
        raise InvalidInput("rate limit request", "descriptors", "a name is too long, or none")
    where, count, period_s = f"ambient:limit:{{{route}}}:{said[RATE]}", int(rate[1]), int(rate[2])
    for key in whom:
        # However long: who could have a request refused here would pass uncounted where a limit says allow.
        if key == CLIENT:
            return Asked(f"{where}:{_hash(said[key])}", count, period_s)
        whose, what = _hash(f"{key}\0{said[key]}"), _hash(key)
        return Asked(f"{where}:{whose}", count, period_s, f"{where}:{what}:values", f"{where}:{what}:{whose[:_REST]}")
    return Asked(f"{where}:all", count, period_s)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def response(asked: Sequence[Asked], counted: Sequence[Counted]) -> Any:
    """The answer: over when one of the limits is."""
    made = RESPONSE(overall_code=_OVER if any(one.over for one in counted) else _OK)
    for limit, found in zip(asked, counted, strict=True):
        status = made.statuses.add(code=_OVER if found.over else _OK, limit_remaining=max(found.left, 0))
        status.current_limit.requests_per_unit = limit.count
        status.current_limit.unit = _UNITS[limit.period_s]
        status.duration_until_reset.FromMilliseconds(found.reset_ms)
    return made
