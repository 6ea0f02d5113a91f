"""trafficPolicy of a DestinationRule: everything that is read, and every rule that refuses one."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.networking import DestinationRule
from ambient.kube.objects import parse_object
from ambient.kube.traffic_values import Balancer, HashBy, Keepalive, Outliers, Pool, RetryBudget, TrafficPolicy
from tests.ambient.kube.test_traffic import RULE
from tests.support.refusals import Bad, changed, refused

EVERY: dict[str, Any] = {
    "loadBalancer": {
        "consistentHash": {"httpCookie": {"name": "c", "path": "/", "ttl": "1.5s"}, "maglev": {"tableSize": 101}},
        "warmup": {"duration": "10s"},
    },
    "connectionPool": {
        "tcp": {
            "maxConnections": 1,
            "connectTimeout": "1s",
            "tcpKeepalive": {"probes": 3, "time": "10s", "interval": "1s"},
            "maxConnectionDuration": "1h",
            "idleTimeout": "2s",
        },
        "http": {
            "http1MaxPendingRequests": 2,
            "http2MaxRequests": 3,
            "maxRequestsPerConnection": 4,
            "maxRetries": 5,
            "idleTimeout": "3s",
            "h2UpgradePolicy": "UPGRADE",
            "maxConcurrentStreams": 6,
        },
    },
    "outlierDetection": {
        "consecutive5xxErrors": 7,
        "consecutiveGatewayErrors": 8,
        "consecutiveLocalOriginFailures": 9,
        "splitExternalLocalOriginErrors": True,
        "interval": "1s",
        "baseEjectionTime": "2s",
        "maxEjectionPercent": 100,
        "minHealthPercent": 50,
    },
    "retryBudget": {"percent": 12.5, "minRetryConcurrency": 1},
}
EVERY_RULE = changed(RULE, "spec.trafficPolicy", EVERY)


def test_everything_that_is_read_of_a_traffic_policy() -> None:
    found = parse_object(EVERY_RULE, "x")
    assert isinstance(found, DestinationRule)
    keepalive = Keepalive(3, 10_000, 1000)
    assert found.traffic == TrafficPolicy(
        Balancer(hash_by=HashBy("cookie", "c", "/", 1500), table=101, warmup_ms=10_000),
        Pool(1, 1000, keepalive, 3_600_000, 2000, 2, 3, 4, 5, 3000, 6, upgrade="UPGRADE"),
        Outliers(7, 8, 9, True, 1000, 2000, 100, 50),
        retry_budget=RetryBudget(12.5, 1),
    )


HASH = "spec.trafficPolicy.loadBalancer.consistentHash"
POOL = "spec.trafficPolicy.connectionPool"
TRAFFIC_RULES = [
    Bad(f"{HASH}.useSourceIp", True, "needs exactly one of", at=HASH),
    Bad(f"{HASH}.ringHash", {}, "ringHash, maglev and minimumRingSize exclude each other", at=HASH),
    Bad(f"{HASH}.maglev.tableSize", 100, "a tableSize has to be a prime number, 100 is none", at=f"{HASH}.maglev"),
    Bad(f"{HASH}.maglev.tableSize", 65_539, "65539 is not in range"),
    Bad(
        HASH,
        {"useSourceIp": True, "ringHash": {"minimumRingSize": 65_537}},
        "65537 is not in range",
        at=f"{HASH}.ringHash.minimumRingSize",
    ),
    Bad(f"{HASH}.httpCookie.name", "a b", "is not an HTTP header name"),
    Bad(f"{HASH}.httpCookie.ttl", "soon", "is not a duration"),
    Bad(f"{HASH}.httpCookie.path", "/;a", "is no path of a cookie"),
    Bad("spec.trafficPolicy.loadBalancer.warmup.duration", "0s", "has to be at least 1ms"),
    Bad(f"{POOL}.tcp.maxConnections", -1, "-1 is not in range"),
    Bad(f"{POOL}.tcp.connectTimeout", "0s", "has to be at least 1ms"),
    Bad(f"{POOL}.http.h2UpgradePolicy", "MAYBE", "is not one of DEFAULT, DO_NOT_UPGRADE, UPGRADE"),
    Bad(f"{POOL}.http.unknown", 1, "unknown field"),
    Bad("spec.trafficPolicy.outlierDetection.maxEjectionPercent", 101, "101 is not a percentage (0..100)"),
    Bad("spec.trafficPolicy.outlierDetection.interval", "1", "is not a duration"),
    Bad("spec.trafficPolicy.retryBudget.percent", "x", "expected a number"),
    Bad("spec.trafficPolicy.retryBudget.percent", 100.5, "100.5 is not a percentage (0..100)"),
]


@pytest.mark.parametrize("bad", TRAFFIC_RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[-60:])
def test_a_broken_traffic_policy_is_refused(bad: Bad) -> None:
    refused(EVERY_RULE, bad)
