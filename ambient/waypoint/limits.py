"""Limits on the rate of a route's requests, for all clients together and for each by its identity. Pure.

The filter stands in every chain, after those that judge, and does nothing by itself. Each proxy counts for itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.kube.routing import Limit
from ambient.waypoint.access import PEER
from ambient.waypoint.typed import Message, any_of, typed

LIMIT_FILTER: Final = "ambient.limit"
MOST_CLIENTS: Final = 10_000
"""Identities that are counted at the same time for one route; whoever was quiet longest gives way and begins anew."""
_LOCAL: Final = "filters.http.local_ratelimit.v3.LocalRateLimit"
_EXPRESSION: Final = "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor"
_NO_LIMIT: Final = Limit(2**32 - 1, 1)
_ALWAYS: Final = {"default_value": {"numerator": 100}}
_CLIENT: Final = "client"


def limit_filter() -> Message:
    """For the chain."""
    return typed(LIMIT_FILTER, _LOCAL, stat_prefix="limit")


def limits_of_route(limits: Iterable[Limit]) -> Message:
    """Per-filter configuration of one route; {} without limits. Who has no identity shares the limit for all alone."""
    by_kind = {one.per_client: one for one in limits}
    if not by_kind:
        return {}
    made = any_of(
        f"envoy.extensions.{_LOCAL}",
        stat_prefix="limit",
        filter_enabled=_ALWAYS,
        filter_enforced=_ALWAYS,
        token_bucket=_bucket(by_kind.get(False, _NO_LIMIT)),
    )
    if True in by_kind:
        identity = any_of(_EXPRESSION, descriptor_key=_CLIENT, text=f'filter_state["{PEER}"]')
        action = {"extension": {"name": "envoy.rate_limit_descriptors.expr", "typed_config": identity}}
        made["rate_limits"] = [{"actions": [action]}]
        # A descriptor without a value stands for every value: each has a bucket of its own.
        made["descriptors"] = [{"entries": [{"key": _CLIENT}], "token_bucket": _bucket(by_kind[True])}]
        made["max_dynamic_descriptors"] = MOST_CLIENTS
        made["always_consume_default_token_bucket"] = True
    return {LIMIT_FILTER: made}


def _bucket(limit: Limit) -> Message:
    return {"max_tokens": limit.count, "tokens_per_fill": limit.count, "fill_interval": f"{limit.period_s}s"}
