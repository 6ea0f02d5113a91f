"""The way of a gateway to services that are behind a waypoint: a tunnel to that, which judges and carries on. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ambient.model.address import HBONE_PORT
from ambient.waypoint import tls, tunnel
from ambient.waypoint.door import Through
from ambient.waypoint.front import View
from ambient.waypoint.typed import ADS, CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, Message


def listener_name(waypoint: str) -> str:
    """Of the internal listener, and of the cluster that it leads to; `waypoint` is "namespace/name"."""
    return f"through|{waypoint}"


def through_resources(waypoint: Through, view: View) -> Iterator[tuple[str, str, Message]]:
    """The internal listener that connections are dialled into, and the waypoint's proxies."""
    name = listener_name(waypoint.name)
    yield LISTENER_TYPE, name, tunnel.originate(name)
    made = tunnel.originate_cluster(view)
    for field in ("lb_policy", "cleanup_interval", "original_dst_lb_config"):
        del made[field]
    yield (
        CLUSTER_TYPE,
        name,
        {
            **made,
            "name": name,
            "type": "EDS",
            "eds_cluster_config": {"eds_config": dict(ADS), "service_name": name},
            "transport_socket": tls.upstream_exact(waypoint.identities),
        },
    )
    found = [
        {"endpoint": {"address": {"socket_address": {"address": one, "port_value": HBONE_PORT}}}}
        for one in waypoint.addresses
    ]
    yield ENDPOINT_TYPE, name, {"cluster_name": name, "endpoints": [{"lb_endpoints": found}]}
