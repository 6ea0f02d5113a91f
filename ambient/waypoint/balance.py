"""How a cluster chooses among its endpoints, and by what equal requests find the same one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.kube.traffic_values import LARGEST_RING, Balancer, HashBy
from ambient.waypoint.typed import Message, seconds

_SIMPLE: Final = {"ROUND_ROBIN": "ROUND_ROBIN", "RANDOM": "RANDOM"}
_SLOW_START: Final = {"ROUND_ROBIN": "round_robin_lb_config", "LEAST_REQUEST": "least_request_lb_config"}


def balancing(asked: Balancer | None) -> Message:
    """The fields of a cluster. What nobody asks for, and Istio's PASSTHROUGH, is the least loaded of two."""
    if asked is None:
        return {"lb_policy": "LEAST_REQUEST"}
    if asked.hash_by is not None and asked.table:
        return {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": asked.table}}
    if asked.hash_by is not None:
        size = {"maximum_ring_size": LARGEST_RING, **({"minimum_ring_size": asked.ring} if asked.ring else {})}
        return {"lb_policy": "RING_HASH", "ring_hash_lb_config": size}
    policy = _SIMPLE.get(asked.simple, "LEAST_REQUEST")
    made: Message = {"lb_policy": policy}
    if asked.warmup_ms and policy in _SLOW_START:
        made[_SLOW_START[policy]] = {"slow_start_config": {"slow_start_window": seconds(asked.warmup_ms)}}
    return made


def hash_policies(asked: Iterable[HashBy | None]) -> Message:
    """The field of a route that leads to clusters with these; {} where none hashes."""
    found = [_hash(one) for one in dict.fromkeys(asked) if one is not None]
    return {"hash_policy": found} if found else {}


def _hash(by: HashBy) -> Message:
    match by.kind:
        case "header":
            return {"header": {"header_name": by.name}}
        case "query":
            return {"query_parameter": {"name": by.name}}
        case "source":
            return {"connection_properties": {"source_ip": True}}
    cookie: Message = {"name": by.name}
    if by.path:
        cookie["path"] = by.path
    if by.ttl_ms is not None:
        cookie["ttl"] = seconds(by.ttl_ms)
    return {"cookie": cookie}
