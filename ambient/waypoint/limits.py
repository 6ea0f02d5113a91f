"""Limits on the rate of a route's requests that each proxy counts for itself, for all clients, for each, and for each
value of a header or of a claim. Pure.

The filter stands in every chain, after those that judge, and is passed by requests of routes with limits alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.kube.routing import Limit
from ambient.waypoint.access import PEER
from ambient.waypoint.rbac_claims import JWT_FILTER, PAYLOAD
from ambient.waypoint.typed import Message, any_of, typed

LIMIT_FILTER: Final = "ambient.limit"
MOST_CLIENTS: Final = 10_000
"""Identities and values that are counted at the same time for one route; whoever was quiet longest gives way and begins
anew."""
_LOCAL: Final = "filters.http.local_ratelimit.v3.LocalRateLimit"
_EXPRESSION: Final = "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor"
_NO_LIMIT: Final = Limit(2**32 - 1, 1)
_ALWAYS: Final = {"default_value": {"numerator": 100}}
CLIENT: Final = "client"
"""Key of the part of a descriptor that is who asks."""
HEADER: Final = "header:"
"""What the key of the part that is a header's value begins with, before the header's name."""
CLAIM: Final = "claim:"
"""The same of a claim of the token that was accepted."""
_LONGEST: Final = 256
"""Of a header's value, in characters."""
_NONE: Final = " "
"""Stands for no value, as no header has it."""
_ODD: Final = "  "
"""Stands for values that are empty, too long, or not of ASCII's printable signs: they are counted together, so nobody
fills memory with them, or has a question refused that then counts nowhere."""


def limit_filter() -> Message:
    """For the chain."""
    return typed(LIMIT_FILTER, _LOCAL, stat_prefix="limit")


def limits_of_route(limits: Iterable[Limit]) -> Message:
    """Per-filter configuration of one route; {} without limits. Who has no identity shares the limit for all alone."""
    own = [one for one in limits if not one.route]
    if not own:
        return {}
    general = next((one for one in own if not descriptor_key(one)), _NO_LIMIT)
    made = any_of(
        f"envoy.extensions.{_LOCAL}",
        stat_prefix="limit",
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        token_bucket=_bucket(general),
    )
    if chosen := [one for one in own if descriptor_key(one)]:
        made["rate_limits"] = [{"actions": by_whom(one)} for one in chosen]
        # A descriptor without a value stands for every value: each has a bucket of its own.
        made["descriptors"] = [
            {"entries": [{"key": descriptor_key(one)}], "token_bucket": _bucket(one)} for one in chosen
        ]
        made["max_dynamic_descriptors"] = MOST_CLIENTS
        made["always_consume_default_token_bucket"] = True
    return {LIMIT_FILTER: made}


def descriptor_key(limit: Limit) -> str:
    """Of the part of a descriptor that tells requests apart, "" where all are counted together."""
    if limit.per_client:
        return CLIENT
    return f"{HEADER}{limit.header}" if limit.header else f"{CLAIM}{limit.claim}" if limit.claim else ""


def by_whom(limit: Limit) -> list[Message]:
    """Actions for that part. Requests without the header or claim are counted together; without an identity there is no
    descriptor at all."""
    if limit.per_client:
        return [_expression(CLIENT, f'filter_state["{PEER}"]')]
    if limit.header:
        value = f'request.headers["{limit.header}"]'
        plain = f'{value}.matches("^[ -~]+$") && size({value}) <= {_LONGEST}'
        text = f'"{limit.header}" in request.headers ? ({plain} ? {value} : "{_ODD}") : "{_NONE}"'
        return [_expression(descriptor_key(limit), text)]
    if limit.claim:
        path = [{"key": PAYLOAD}, {"key": limit.claim}]
        where = {"key": JWT_FILTER, "path": path}
        told = {"descriptor_key": descriptor_key(limit), "metadata_key": where, "default_value": _NONE}
        return [{"metadata": {**told, "source": "DYNAMIC"}}]
    return []


def _expression(key: str, text: str) -> Message:
    found = any_of(_EXPRESSION, descriptor_key=key, text=text)
    return {"extension": {"name": "envoy.rate_limit_descriptors.expr", "typed_config": found}}


def _bucket(limit: Limit) -> Message:
    return {"max_tokens": limit.count, "tokens_per_fill": limit.count, "fill_interval": f"{limit.period_s}s"}
