"""Worlds and destinations for routing: what the tables of routes are made of, and the rows about single addresses.

Each row of a table is a rule of its own and fails when its rule is removed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

from ambient.model.mesh import Value
from ambient.model.outcome import Forward, Hop, NoRoute, Passthrough, Refuse, ServiceLabels
from ambient.model.route import Routed
from ambient.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    Health,
    HealthPolicy,
    LoadBalancing,
    LoadBalancingMode,
    Locality,
    NetworkAddress,
    NetworkMode,
    Scope,
    Service,
    TunnelProtocol,
    WeightedWaypoint,
    Workload,
)
from tests.support.builders import behind, service, waypoint, workload

CLIENT = workload("client", "10.0.0.1,fd00::1", locality=Locality("r1", "z1", "s1"))
PEER = workload("peer", "10.0.0.2,fd00::2")
PLAIN = workload("plain", "10.0.0.3", tunnel_protocol=TunnelProtocol.NONE)
WEB = service("web", "10.96.0.1,fd96::1")
LABELS = ServiceLabels("web.default.svc.cluster.local", "default", "web")


@dataclass(frozen=True)
class Case:
    """`expect`: hops as texts ("ip:port" plain, "ip:port>authority" HBONE, "gateway:port>>authority" double HBONE; a
    hostname in place of the ip where it is to be resolved), a NoRoute, or "pass"."""

    world: tuple[Value, ...]
    dial: str
    expect: tuple[str, ...] | NoRoute | str
    source: Workload = CLIENT
    registry_only: bool = False
    network: str = ""


def hbone(ip: str, target: str) -> str:
    return f"{ip}:15008>{target}"


def shown(routed: Routed) -> tuple[str, ...] | NoRoute | str:
    match routed.plan:
        case Forward(hops=hops):
            return tuple(_shown(hop) for hop in hops)
        case Refuse(reason=reason):
            return reason
        case Passthrough():
            return "pass"


def _shown(hop: Hop) -> str:
    host = hop.hostname or (f"[{hop.ip}]" if ":" in hop.ip else hop.ip)
    arrow = ">>" if hop.inner else ">"
    return f"{host}:{hop.port}{arrow}{hop.authority}" if hop.authority else f"{host}:{hop.port}"


def ends(*names_and_ips: str, of: Service = WEB, **changes: Any) -> tuple[Workload, ...]:
    """Endpoints "name ip" of a service."""
    pairs = (each.partition(" ") for each in names_and_ips)
    return tuple(behind(workload(name, ips, **changes), of) for name, _, ips in pairs)


def balanced(
    mode: LoadBalancingMode, *scopes: Scope, health: HealthPolicy = HealthPolicy.ONLY_HEALTHY, **changes: Any
) -> Service:
    return replace(WEB, load_balancing=LoadBalancing(mode, scopes, health), **changes)


STRICT, FAILOVER = LoadBalancingMode.STRICT, LoadBalancingMode.FAILOVER
TWO = ends("a 10.0.1.1", "b 10.0.1.2")
SICK = ends("c 10.0.1.3", status=Health.UNHEALTHY)
NEAR = ends("near 10.0.1.1", node="n1", locality=Locality("r1", "z1", "s1"))
SAME_ZONE = ends("zone 10.0.1.2", node="n2", locality=Locality("r1", "z1", "s2"))
SAME_REGION = ends("region 10.0.1.3", node="n3", locality=Locality("r1", "z2", "s1"))
FAR = ends("far 10.0.1.4", node="n4", locality=Locality("r2", "z1", "s1"), cluster_id="other")
EVERYWHERE = (*NEAR, *SAME_ZONE, *SAME_REGION, *FAR)
ABROAD = replace(ends("abroad 10.0.1.5")[0], network="east")
A, B = hbone("10.0.1.1", "10.0.1.1:8080"), hbone("10.0.1.2", "10.0.1.2:8080")

WP = service("wp", "10.96.0.9", (15008, 15008), (15021, 15021))
WP_POD = behind(workload("wp", "10.0.9.1"), WP)
GUARDED = replace(WEB, waypoint=waypoint())
TUNNEL = replace(WP_POD, services={WP.key: ()}, application_tunnel=ApplicationTunnel())
BARE_WP = replace(WP, ports=())
BY_VIP = GatewayAddress(NetworkAddress("", ip_address("10.96.0.9")))
BY_IP = GatewayAddress(NetworkAddress("", ip_address("10.0.9.1")))
WP_HOP = hbone("10.0.9.1", "10.96.0.1:80")


def weighted(*pairs: tuple[str, int], **changes: Any) -> Service:
    entries = tuple(WeightedWaypoint(waypoint(name), weight) for name, weight in pairs)
    return replace(WEB, weighted_waypoints=entries, **changes)


def cidr(text: str, **changes: Any) -> Service:
    network = ip_network(text)
    return service(
        "ext", "", (443, 443), addresses=(NetworkAddress("", network.network_address, network.prefixlen),), **changes
    )


DIRECT: dict[str, Case] = {
    "a pod that speaks HBONE": Case((PEER,), "10.0.0.2:8080", (hbone("10.0.0.2", "10.0.0.2:8080"),)),
    "the same over IPv6": Case((PEER,), "[fd00::2]:8080", ("[fd00::2]:15008>[fd00::2]:8080",)),
    "a pod that does not": Case((PLAIN,), "10.0.0.3:8080", ("10.0.0.3:8080",)),
    "an unhealthy pod dialled directly": Case(
        (replace(PEER, status=Health.UNHEALTHY),), "10.0.0.2:1", (hbone("10.0.0.2", "10.0.0.2:1"),)
    ),
    "a pod's HBONE port": Case((PEER,), "10.0.0.2:15008", (hbone("10.0.0.2", "10.0.0.2:15008"),)),
    "a pod on the same node": Case((replace(PEER, node="n1"),), "10.0.0.2:80", (hbone("10.0.0.2", "10.0.0.2:80"),)),
    "nobody's address": Case((PEER,), "203.0.113.1:443", "pass"),
    "nobody's address under REGISTRY_ONLY": Case(
        (PEER,), "203.0.113.1:443", NoRoute.NOT_IN_REGISTRY, registry_only=True
    ),
    "a known address under REGISTRY_ONLY": Case((PLAIN,), "10.0.0.3:80", ("10.0.0.3:80",), registry_only=True),
    "a host-network pod shares its node's address": Case(
        (replace(PEER, network_mode=NetworkMode.HOST_NETWORK),), "10.0.0.2:80", "pass"
    ),
    "an address on another network": Case((replace(PEER, network="east"),), "10.0.0.2:80", "pass"),
    "its own address": Case((CLIENT,), "10.0.0.1:8080", "pass"),
    "its own address over IPv6": Case((CLIENT,), "[fd00::1]:8080", "pass"),
    "its own address under REGISTRY_ONLY": Case((CLIENT,), "10.0.0.1:8080", "pass", registry_only=True),
    "loopback": Case((), "127.0.0.1:8080", "pass"),
    "the unspecified address": Case((), "0.0.0.0:8080", "pass"),
    "ztunnel's outbound port on loopback": Case((), "127.0.0.1:15001", NoRoute.LOOP_TO_ZTUNNEL),
    "ztunnel's plaintext port on loopback": Case((), "127.0.0.1:15006", NoRoute.LOOP_TO_ZTUNNEL),
    "ztunnel's HBONE port on loopback": Case((), "127.0.0.1:15008", NoRoute.LOOP_TO_ZTUNNEL),
    "ztunnel's port on IPv6 loopback": Case((), "[::1]:15008", NoRoute.LOOP_TO_ZTUNNEL),
    "ztunnel's port on its own address": Case((CLIENT,), "10.0.0.1:15001", NoRoute.LOOP_TO_ZTUNNEL),
    "ztunnel's port on its own IPv6 address": Case((CLIENT,), "[fd00::1]:15006", NoRoute.LOOP_TO_ZTUNNEL),
    "ztunnel's port on the unspecified address": Case((), "0.0.0.0:15008", NoRoute.LOOP_TO_ZTUNNEL),
    "a pod address that is a service address too": Case(
        (PEER, replace(WEB, addresses=(NetworkAddress("", ip_address("10.0.0.2")),)), *TWO),
        "10.0.0.2:80",
        (hbone("10.0.0.2", "10.0.0.2:80"),),
    ),
}
