"""The cluster of the service that counts for all proxies, which every proxy has. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ambient.waypoint.front import Front, FrontPort, Protocol
from ambient.waypoint.service import cluster, endpoints
from ambient.waypoint.shared_limits import LIMITER
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, Message


def limiter(front: Front | None) -> Iterator[tuple[str, str, Message]]:
    """Type URL, name and content. `front`: the service with the one port that is asked; None: nobody counts, and there
    is nobody to ask."""
    found = front or Front("", LIMITER, (), (FrontPort(0, Protocol.HTTP2),))
    port = replace(found.ports[0], protocol=Protocol.HTTP2)
    made = cluster(found, port, "ask-grpc")
    named = {"name": LIMITER, "eds_cluster_config": {**made["eds_cluster_config"], "service_name": LIMITER}}
    yield CLUSTER_TYPE, LIMITER, {**made, **named}
    yield ENDPOINT_TYPE, LIMITER, {**endpoints(found, port, "ask-grpc"), "cluster_name": LIMITER}
