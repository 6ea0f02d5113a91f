"""Limits on the rate of a route's requests that all proxies count together, by asking a service. Pure.

What is asked says everything: which route, how many in how long, of whom. So the service needs no configuration, and
another limit begins with another count. Two filters stand in every chain, after the one that counts by itself, passed
only where a route asks for it: one lets pass what cannot be counted, one refuses it. A route asks one of them alone:
what the second refused the first would have counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.kube.routing import Limit
from ambient.waypoint.limits import by_whom
from ambient.waypoint.typed import Message, any_of, typed

DOMAIN: Final = "ambient"
ROUTE: Final = "route"
RATE: Final = "rate"
"""Key of the part of a descriptor that is COUNT/SECONDS."""
LIMITER: Final = "ambient.limiter"
"""The cluster of the service. It is always there; where nobody counts it has no endpoints."""
PATIENCE: Final = "0.5s"
"""How long a proxy waits for an answer; the service gives up on Redis before."""
LAX: Final = "ambient.limit.shared.lax"
STRICT: Final = "ambient.limit.shared.strict"
_FILTER: Final = "filters.http.ratelimit.v3.RateLimit"


def shared_limit_filters() -> list[Message]:
    """For the chain."""
    return [_filter(LAX, "lax", strict=False), _filter(STRICT, "strict", strict=True)]


def shared_limits_of_route(limits: Iterable[Limit]) -> Message:
    """Per-filter configuration of one route; {} where nothing is counted together."""
    chosen = [one for one in limits if one.route]
    return {
        name: any_of(f"envoy.extensions.{_FILTER}PerRoute", rate_limits=[_asked(one) for one in found])
        for name, strict in ((LAX, False), (STRICT, True))
        if (found := [one for one in chosen if one.strict is strict])
    }


def _filter(name: str, prefix: str, *, strict: bool) -> Message:
    service = {"envoy_grpc": {"cluster_name": LIMITER}, "timeout": PATIENCE}
    return typed(
        name,
        _FILTER,
        domain=DOMAIN,
        stat_prefix=prefix,
        timeout=PATIENCE,
        failure_mode_deny=strict,
        status_on_error={"code": "ServiceUnavailable"},
        rate_limited_as_resource_exhausted=True,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        rate_limit_service={"grpc_service": service, "transport_api_version": "V3"},
    )


def _asked(limit: Limit) -> Message:
    said = ((ROUTE, limit.route), (RATE, f"{limit.count}/{limit.period_s}"))
    actions: list[Message] = [
        {"generic_key": {"descriptor_key": key, "descriptor_value": value}} for key, value in said
    ]
    return {"actions": [*actions, *by_whom(limit)]}
