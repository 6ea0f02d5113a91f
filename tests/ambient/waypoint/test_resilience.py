"""What a DestinationRule says of connections and outliers, as fields of Envoy's clusters."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.traffic_values import Keepalive, Outliers, Pool, RetryBudget, TrafficPolicy
from ambient.waypoint.resilience import UNLIMITED, http2_options, http_options, resilience
from ambient.waypoint.typed import CLUSTER_TYPE, any_of
from ambient.waypoint.wire import encode

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def breaker(**pool: Any) -> dict[str, Any]:
    (found,) = resilience(TrafficPolicy(pool=Pool(**pool)))["circuit_breakers"]["thresholds"]
    assert isinstance(found, dict)
    return found


def outliers(**fields: Any) -> dict[str, Any]:
    found = resilience(TrafficPolicy(outliers=Outliers(**fields)))["outlier_detection"]
    assert isinstance(found, dict)
    return found


def test_where_nothing_is_said_nothing_is_limited_and_nobody_is_cast_out() -> None:
    made = resilience(TrafficPolicy())
    assert set(made["circuit_breakers"]["thresholds"][0].values()) == {UNLIMITED}
    assert made["connect_timeout"] == "10s"
    assert made["common_lb_config"] == {"healthy_panic_threshold": {"value": 0}}
    assert "outlier_detection" not in made
    assert http_options(TrafficPolicy()) == http2_options(TrafficPolicy()) == {}


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("max_connections", "max_connections"),
        ("max_pending", "max_pending_requests"),
        ("max_requests", "max_requests"),
        ("max_retries", "max_retries"),
    ],
)
def test_each_limit_of_the_pool_is_one_of_the_breaker(said: str, field: str) -> None:
    found = breaker(**{said: 7})
    assert found[field] == 7
    assert [value for name, value in found.items() if name != field] == [UNLIMITED] * 3
    assert breaker(**{said: 0})[field] == UNLIMITED


def test_a_retry_budget_limits_retries_by_the_requests_under_way() -> None:
    made = resilience(TrafficPolicy(retry_budget=RetryBudget(25.0, 5)))
    budget = made["circuit_breakers"]["thresholds"][0]["retry_budget"]
    assert budget == {"budget_percent": {"value": 25.0}, "min_retry_concurrency": 5}


def test_errors_in_a_row_cast_an_endpoint_out_and_a_zero_says_they_do_not() -> None:
    found = outliers(consecutive_5xx=3, gateway_errors=0, interval_ms=1500, ejection_ms=60_000, max_ejection_percent=50)
    assert (found["consecutive_5xx"], found["enforcing_consecutive_5xx"]) == (3, 100)
    assert found["enforcing_consecutive_gateway_failure"] == 0
    assert (found["interval"], found["base_ejection_time"], found["max_ejection_percent"]) == ("1.5s", "60s", 50)
    assert found["enforcing_success_rate"] == 0


def test_failures_of_our_own_count_apart_where_that_is_asked_for() -> None:
    found = outliers(split_local=True, local_failures=4)
    assert found["split_external_local_origin_errors"] is True
    assert (found["consecutive_local_origin_failure"], found["enforcing_consecutive_local_origin_failure"]) == (4, 100)
    assert "consecutive_local_origin_failure" not in outliers(local_failures=4)


def test_below_the_least_healthy_share_all_are_asked() -> None:
    made = resilience(TrafficPolicy(outliers=Outliers(min_health_percent=40)))
    assert made["common_lb_config"] == {"healthy_panic_threshold": {"value": 40}}


def test_all_of_it_is_a_cluster_that_can_be_written() -> None:
    policy = TrafficPolicy(
        pool=Pool(1, 250, Keepalive(3, 7000, 2000), 60_000, 5000, 2, 3, 4, 5, 6000, 7),
        outliers=Outliers(1, 2, 3, True, 4000, 5000, 60, 70),
        retry_budget=RetryBudget(),
    )
    options = any_of(
        OPTIONS,
        common_http_protocol_options=http_options(policy),
        explicit_http_config={"http2_protocol_options": http2_options(policy)},
    )
    assert http_options(policy) == {
        "idle_timeout": "6s",
        "max_connection_duration": "60s",
        "max_requests_per_connection": 4,
    }
    made = {"name": "x", **resilience(policy), "typed_extension_protocol_options": {OPTIONS: options}}
    assert made["upstream_connection_options"] == {
        "tcp_keepalive": {"keepalive_probes": 3, "keepalive_time": 7, "keepalive_interval": 2}
    }
    encode(CLUSTER_TYPE, "x", made)


def test_a_keepalive_of_less_than_a_second_is_one_of_a_second() -> None:
    made = resilience(TrafficPolicy(pool=Pool(keepalive=Keepalive(0, 500, 999))))
    assert made["upstream_connection_options"] == {"tcp_keepalive": {"keepalive_time": 1, "keepalive_interval": 1}}
