"""What keeps a service from being overrun, and its bad endpoints from being asked: limits of connections and requests,
outlier detection, and how long connections live. Pure; as Istio reads a DestinationRule.
"""

from __future__ import annotations

from typing import Final

from ambient.kube.traffic_values import Keepalive, Outliers, Pool, RetryBudget, TrafficPolicy
from ambient.waypoint.typed import Message, seconds

UNLIMITED: Final = 4294967295
"""Envoy's own limits are for one application's sidecar; a waypoint carries everybody's requests."""
_CONNECT_MS: Final = 10_000


def resilience(policy: TrafficPolicy) -> Message:
    """The fields of a cluster."""
    pool = policy.pool or Pool()
    made: Message = {
        "connect_timeout": seconds(pool.connect_timeout_ms or _CONNECT_MS),
        "circuit_breakers": {"thresholds": [_breaker(pool, policy.retry_budget)]},
        # Where no more than this share is healthy, all are asked again; 0: never, what is bad stays away.
        "common_lb_config": {"healthy_panic_threshold": {"value": _least_healthy(policy.outliers)}},
    }
    if policy.outliers is not None:
        made["outlier_detection"] = _outliers(policy.outliers)
    if pool.keepalive is not None:
        made["upstream_connection_options"] = {"tcp_keepalive": _keepalive(pool.keepalive)}
    return made


def http_options(policy: TrafficPolicy) -> Message:
    """`common_http_protocol_options` of a cluster; {} where nothing is said."""
    pool = policy.pool or Pool()
    made: Message = {}
    if pool.http_idle_ms is not None:
        made["idle_timeout"] = seconds(pool.http_idle_ms)
    if pool.max_duration_ms is not None:
        made["max_connection_duration"] = seconds(pool.max_duration_ms)
    if pool.requests_per_connection:
        made["max_requests_per_connection"] = pool.requests_per_connection
    return made


def http2_options(policy: TrafficPolicy) -> Message:
    """`http2_protocol_options` of a cluster."""
    streams = policy.pool.max_streams if policy.pool is not None else None
    return {"max_concurrent_streams": streams} if streams else {}


def _breaker(pool: Pool, budget: RetryBudget | None) -> Message:
    made: Message = {
        "max_connections": _limit(pool.max_connections),
        "max_pending_requests": _limit(pool.max_pending),
        "max_requests": _limit(pool.max_requests),
        "max_retries": _limit(pool.max_retries),
    }
    if budget is not None:
        made["retry_budget"] = {"budget_percent": {"value": budget.percent}, "min_retry_concurrency": budget.least}
    return made


def _limit(value: int | None) -> int:
    """Istio reads 0 as no limit of one's own."""
    return value or UNLIMITED


def _least_healthy(outliers: Outliers | None) -> int:
    return (outliers.min_health_percent or 0) if outliers is not None else 0


def _outliers(asked: Outliers) -> Message:
    made: Message = {"enforcing_success_rate": 0, "enforcing_failure_percentage": 0}
    for name, count in (
        ("consecutive_5xx", asked.consecutive_5xx),
        ("consecutive_gateway_failure", asked.gateway_errors),
    ):
        if count is not None:
            made[name] = count or 1
            made[f"enforcing_{name}"] = 100 if count else 0
    if asked.split_local:
        made["split_external_local_origin_errors"] = True
        made["enforcing_local_origin_success_rate"] = 0
        if asked.local_failures:
            made["consecutive_local_origin_failure"] = asked.local_failures
            made["enforcing_consecutive_local_origin_failure"] = 100
    for name, value in (("interval", asked.interval_ms), ("base_ejection_time", asked.ejection_ms)):
        if value:
            made[name] = seconds(value)
    if asked.max_ejection_percent:
        made["max_ejection_percent"] = asked.max_ejection_percent
    return made


def _keepalive(asked: Keepalive) -> Message:
    made: Message = {}
    if asked.probes:
        made["keepalive_probes"] = asked.probes
    if asked.time_ms:
        made["keepalive_time"] = _whole_seconds(asked.time_ms)
    if asked.interval_ms:
        made["keepalive_interval"] = _whole_seconds(asked.interval_ms)
    return made


def _whole_seconds(milliseconds: int) -> int:
    """At least one: to kernels 0 is no time at all, and refused."""
    return max(1, milliseconds // 1000)
