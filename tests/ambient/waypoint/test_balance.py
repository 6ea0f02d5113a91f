"""How a cluster chooses: by the word of its DestinationRule, and by what of a request."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.kube.traffic_values import Balancer, HashBy
from ambient.waypoint.balance import balancing, hash_policies
from ambient.waypoint.typed import Message

SLOW = {"slow_start_config": {"slow_start_window": "1.5s"}}
RING = Balancer(hash_by=HashBy("source"), ring=64)


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        (None, {"lb_policy": "LEAST_REQUEST"}),
        (Balancer("LEAST_CONN"), {"lb_policy": "LEAST_REQUEST"}),
        (Balancer("PASSTHROUGH"), {"lb_policy": "LEAST_REQUEST"}),
        (Balancer("RANDOM", warmup_ms=1500), {"lb_policy": "RANDOM"}),
        (Balancer("ROUND_ROBIN"), {"lb_policy": "ROUND_ROBIN"}),
        (Balancer("ROUND_ROBIN", warmup_ms=1500), {"lb_policy": "ROUND_ROBIN", "round_robin_lb_config": SLOW}),
        (Balancer(warmup_ms=1500), {"lb_policy": "LEAST_REQUEST", "least_request_lb_config": SLOW}),
        (
            RING,
            {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"maximum_ring_size": 65536, "minimum_ring_size": 64}},
        ),
        (replace(RING, ring=0), {"lb_policy": "RING_HASH", "ring_hash_lb_config": {"maximum_ring_size": 65536}}),
        (
            Balancer(hash_by=HashBy("source"), table=101),
            {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 101}},
        ),
    ],
)
def test_a_balancer_is(asked: Balancer | None, made: Message) -> None:
    assert balancing(asked) == made


def test_what_is_hashed_stands_in_the_route_once() -> None:
    cookie = HashBy("cookie", "c", "/", 0)
    found = hash_policies([cookie, None, HashBy("header", "x"), cookie, HashBy("query", "q"), HashBy("source")])
    assert found["hash_policy"] == [
        {"cookie": {"name": "c", "path": "/", "ttl": "0s"}},
        {"header": {"header_name": "x"}},
        {"query_parameter": {"name": "q"}},
        {"connection_properties": {"source_ip": True}},
    ]
    assert hash_policies([None]) == {}
