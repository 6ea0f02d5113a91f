"""Worlds and destinations for routing: each row of the tables is a rule of its own."""

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
    IpFamilies,
    LoadBalancing,
    LoadBalancingMode,
    Locality,
    NamespacedHostname,
    NetworkAddress,
    NetworkMode,
    Scope,
    Service,
    TunnelProtocol,
    Visibility,
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
    """`expect`: hops as texts ("ip:port" plain, "ip:port>authority" HBONE, "ip:port>>authority" double HBONE), a
    NoRoute, or "pass"."""

    world: tuple[Value, ...]
    dial: str
    expect: tuple[str, ...] | NoRoute | str
    source: Workload = CLIENT
    registry_only: bool = False


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
    host = f"[{hop.ip}]" if ":" in hop.ip else hop.ip
    through = ">>" if hop.inner else ">" if hop.authority else ""
    return f"{host}:{hop.port}{through}{hop.authority}"


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

SERVICES: dict[str, Case] = {
    "one endpoint, target port": Case((WEB, TWO[0]), "10.96.0.1:80", (A,)),
    "two endpoints": Case((WEB, *TWO), "10.96.0.1:80", (A, B)),
    "dialled over IPv6, endpoints have only IPv4": Case((WEB, TWO[0]), "[fd96::1]:80", (A,)),
    "the family dialled is preferred, IPv4": Case((WEB, *ends("a 10.0.1.1,fd01::1")), "10.96.0.1:80", (A,)),
    "the family dialled is preferred, IPv6": Case(
        (WEB, *ends("a 10.0.1.1,fd01::1")), "[fd96::1]:80", ("[fd01::1]:15008>[fd01::1]:8080",)
    ),
    "an IPv6 endpoint behind an IPv4 address": Case(
        (WEB, *ends("a fd01::1")), "10.96.0.1:80", ("[fd01::1]:15008>[fd01::1]:8080",)
    ),
    "an IPv4-only service has no IPv6 endpoints": Case(
        (replace(WEB, ip_families=IpFamilies.IPV4_ONLY), *ends("a fd01::1")),
        "10.96.0.1:80",
        NoRoute.NO_HEALTHY_UPSTREAM,
    ),
    "an IPv6-only service has no IPv4 endpoints": Case(
        (replace(WEB, ip_families=IpFamilies.IPV6_ONLY), *ends("a 10.0.1.1")),
        "[fd96::1]:80",
        NoRoute.NO_HEALTHY_UPSTREAM,
    ),
    "a dual-stack service takes what there is": Case(
        (replace(WEB, ip_families=IpFamilies.DUAL), *ends("a 10.0.1.1")), "[fd96::1]:80", (A,)
    ),
    "an endpoint that does not speak HBONE": Case(
        (WEB, *ends("a 10.0.1.1", tunnel_protocol=TunnelProtocol.NONE)), "10.96.0.1:80", ("10.0.1.1:8080",)
    ),
    "endpoints of both kinds": Case(
        (WEB, TWO[0], *ends("b 10.0.1.2", tunnel_protocol=TunnelProtocol.NONE)), "10.96.0.1:80", (A, "10.0.1.2:8080")
    ),
    "a host-network endpoint is reached by its node's address": Case(
        (WEB, *ends("a 10.0.1.1", tunnel_protocol=TunnelProtocol.NONE, network_mode=NetworkMode.HOST_NETWORK)),
        "10.96.0.1:80",
        ("10.0.1.1:8080",),
    ),
    "an endpoint's own port wins over the service's": Case(
        (WEB, behind(workload("a", "10.0.1.1"), WEB, ports=((80, 9999),))),
        "10.96.0.1:80",
        (hbone("10.0.1.1", "10.0.1.1:9999"),),
    ),
    "a named target port comes from the endpoint": Case(
        (service("web", "10.96.0.1", (80, 0)), behind(workload("a", "10.0.1.1"), WEB, ports=((80, 7777),))),
        "10.96.0.1:80",
        (hbone("10.0.1.1", "10.0.1.1:7777"),),
    ),
    "a named target port that no endpoint has": Case(
        (service("web", "10.96.0.1", (80, 0)), replace(TWO[0], services={WEB.key: ()})),
        "10.96.0.1:80",
        NoRoute.NO_HEALTHY_UPSTREAM,
    ),
    "one endpoint lacks the named port": Case(
        (
            service("web", "10.96.0.1", (80, 0)),
            replace(TWO[0], services={WEB.key: ()}),
            behind(workload("b", "10.0.1.2"), WEB, ports=((80, 8080),)),
        ),
        "10.96.0.1:80",
        (B,),
    ),
    "a port the service does not have": Case((WEB, *TWO), "10.96.0.1:81", NoRoute.NO_SERVICE_PORT),
    "a service without endpoints": Case((WEB,), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM),
    "only unhealthy endpoints": Case((WEB, *SICK), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM),
    "healthy and unhealthy endpoints": Case((WEB, *TWO, *SICK), "10.96.0.1:80", (A, B)),
    "publishNotReadyAddresses": Case(
        (balanced(LoadBalancingMode.STANDARD, health=HealthPolicy.ALLOW_ALL), *SICK),
        "10.96.0.1:80",
        (hbone("10.0.1.3", "10.0.1.3:8080"),),
    ),
    "an endpoint without capacity": Case((WEB, TWO[0], *ends("b 10.0.1.2", capacity=0)), "10.96.0.1:80", (A,)),
    "an endpoint known by name only": Case(
        (WEB, *ends("a ", hostname="db.example")), "10.96.0.1:80", NoRoute.NOT_SUPPORTED
    ),
    "by name only beside one with an address": Case(
        (WEB, *ends("x ", hostname="db.example"), TWO[0]), "10.96.0.1:80", (A,)
    ),
    "an endpoint without any address": Case((WEB, *ends("a ")), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM),
    "every endpoint is on another network": Case((WEB, ABROAD), "10.96.0.1:80", NoRoute.NO_GATEWAY),
    "local endpoints where there are remote ones": Case((WEB, ABROAD, *TWO), "10.96.0.1:80", (A, B)),
    "the client itself is an endpoint": Case(
        (WEB, behind(CLIENT, WEB)), "10.96.0.1:80", (hbone("10.0.0.1", "10.0.0.1:8080"),), behind(CLIENT, WEB)
    ),
    "PASSTHROUGH": Case((balanced(LoadBalancingMode.PASSTHROUGH), *TWO), "10.96.0.1:80", "pass"),
    "PASSTHROUGH is in the registry": Case(
        (balanced(LoadBalancingMode.PASSTHROUGH),), "10.96.0.1:80", "pass", registry_only=True
    ),
    "a service only its namespace sees": Case(
        (replace(WEB, visibility=Visibility.NAMESPACE), *TWO), "10.96.0.1:80", "pass", replace(CLIENT, namespace="x")
    ),
    "the same from its namespace": Case((replace(WEB, visibility=Visibility.NAMESPACE), *TWO), "10.96.0.1:80", (A, B)),
    "a block of addresses": Case(
        (cidr("10.8.0.0/16"), *ends("a 10.0.1.1", of=cidr("10.8.0.0/16"))),
        "10.8.3.4:443",
        (hbone("10.0.1.1", "10.0.1.1:443"),),
    ),
    "outside the block": Case((cidr("10.8.0.0/16"),), "10.9.3.4:443", "pass"),
    "a pod inside the block": Case((cidr("10.0.0.0/8"), PEER), "10.0.0.2:443", (hbone("10.0.0.2", "10.0.0.2:443"),)),
}

BALANCING: dict[str, Case] = {
    "STANDARD has no bias": Case(
        (WEB, *EVERYWHERE), "10.96.0.1:80", tuple(hbone(f"10.0.1.{i}", f"10.0.1.{i}:8080") for i in (4, 1, 3, 2))
    ),
    "STRICT by node": Case((balanced(STRICT, Scope.NODE), *EVERYWHERE), "10.96.0.1:80", (A,)),
    "STRICT with nobody there": Case((balanced(STRICT, Scope.NODE), *FAR), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM),
    "STRICT needs every scope": Case((balanced(STRICT, Scope.ZONE, Scope.REGION), *EVERYWHERE), "10.96.0.1:80", (A, B)),
    "STRICT by region": Case(
        (balanced(STRICT, Scope.REGION), *EVERYWHERE), "10.96.0.1:80", (A, hbone("10.0.1.3", "10.0.1.3:8080"), B)
    ),
    "STRICT by subzone": Case(
        (balanced(STRICT, Scope.SUBZONE, Scope.ZONE, Scope.REGION), *EVERYWHERE), "10.96.0.1:80", (A,)
    ),
    "STRICT by cluster": Case((balanced(STRICT, Scope.CLUSTER), *FAR, *NEAR), "10.96.0.1:80", (A,)),
    "FAILOVER takes the nearest": Case(
        (balanced(FAILOVER, Scope.REGION, Scope.ZONE, Scope.SUBZONE), *EVERYWHERE), "10.96.0.1:80", (A,)
    ),
    "FAILOVER shares the nearest rank": Case(
        (balanced(FAILOVER, Scope.REGION, Scope.ZONE), *EVERYWHERE), "10.96.0.1:80", (A, B)
    ),
    "FAILOVER goes further when the nearest is gone": Case(
        (balanced(FAILOVER, Scope.REGION, Scope.ZONE), *SAME_REGION, *FAR),
        "10.96.0.1:80",
        (hbone("10.0.1.3", "10.0.1.3:8080"),),
    ),
    "FAILOVER ends with anybody": Case(
        (balanced(FAILOVER, Scope.REGION), *FAR), "10.96.0.1:80", (hbone("10.0.1.4", "10.0.1.4:8080"),)
    ),
    "FAILOVER counts only scopes in a row": Case(
        # far is in the same-named zone of another region: that counts for nothing
        (balanced(FAILOVER, Scope.REGION, Scope.ZONE), *FAR, *SAME_REGION),
        "10.96.0.1:80",
        (hbone("10.0.1.3", "10.0.1.3:8080"),),
    ),
    "FAILOVER skips unhealthy ones": Case(
        (balanced(FAILOVER, Scope.NODE), replace(NEAR[0], status=Health.UNHEALTHY), *SAME_ZONE), "10.96.0.1:80", (B,)
    ),
    "FAILOVER with NETWORK first keeps any local before remote": Case(
        (balanced(FAILOVER, Scope.NETWORK, Scope.REGION, Scope.ZONE), *FAR, replace(NEAR[0], network="east")),
        "10.96.0.1:80",
        (hbone("10.0.1.4", "10.0.1.4:8080"),),
    ),
    "FAILOVER with NETWORK first orders the local ones": Case(
        (balanced(FAILOVER, Scope.NETWORK, Scope.REGION, Scope.ZONE), *EVERYWHERE), "10.96.0.1:80", (A, B)
    ),
    "FAILOVER with NETWORK and only remote ones": Case(
        (balanced(FAILOVER, Scope.NETWORK, Scope.REGION), ABROAD), "10.96.0.1:80", NoRoute.NO_GATEWAY
    ),
}

WAYPOINTS: dict[str, Case] = {
    "a service behind a waypoint": Case((GUARDED, *TWO, WP, WP_POD), "10.96.0.1:80", (WP_HOP,)),
    "the waypoint decides about ports, too": Case(
        (GUARDED, *TWO, WP, WP_POD), "10.96.0.1:81", (hbone("10.0.9.1", "10.96.0.1:81"),)
    ),
    "a service without endpoints behind a waypoint": Case((GUARDED, WP, WP_POD), "10.96.0.1:80", (WP_HOP,)),
    "dialled over IPv6": Case((GUARDED, WP, WP_POD), "[fd96::1]:80", (hbone("10.0.9.1", "[fd96::1]:80"),)),
    "two pods of the waypoint": Case(
        (GUARDED, WP, WP_POD, behind(workload("wp2", "10.0.9.2"), WP)),
        "10.96.0.1:80",
        (WP_HOP, hbone("10.0.9.2", "10.96.0.1:80")),
    ),
    "the waypoint's own port mapping": Case(
        (GUARDED, WP, behind(workload("wp", "10.0.9.1"), WP, ports=((15008, 15108),))),
        "10.96.0.1:80",
        ("10.0.9.1:15108>10.96.0.1:80",),
    ),
    "a waypoint that does not exist is never bypassed": Case((GUARDED, *TWO), "10.96.0.1:80", NoRoute.UNKNOWN_WAYPOINT),
    "a waypoint without pods is never bypassed": Case((GUARDED, *TWO, WP), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM),
    "a waypoint with unhealthy pods is never bypassed": Case(
        (GUARDED, *TWO, WP, replace(WP_POD, status=Health.UNHEALTHY)), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM
    ),
    "a waypoint without the HBONE port is never bypassed": Case(
        (GUARDED, *TWO, BARE_WP, replace(WP_POD, services={WP.key: ()})), "10.96.0.1:80", NoRoute.NO_SERVICE_PORT
    ),
    "a waypoint with an application tunnel need not have the port": Case(
        (GUARDED, BARE_WP, TUNNEL), "10.96.0.1:80", (WP_HOP,)
    ),
    "a waypoint on another network": Case(
        (GUARDED, WP, replace(WP_POD, network="east")), "10.96.0.1:80", NoRoute.NO_GATEWAY
    ),
    "a waypoint known by service address": Case((replace(WEB, waypoint=BY_VIP), WP, WP_POD), "10.96.0.1:80", (WP_HOP,)),
    "a waypoint known by pod address": Case((replace(WEB, waypoint=BY_IP), WP_POD), "10.96.0.1:80", (WP_HOP,)),
    "a waypoint by pod address with another port": Case(
        (replace(WEB, waypoint=replace(BY_IP, hbone_port=15009)), WP_POD),
        "10.96.0.1:80",
        ("10.0.9.1:15009>10.96.0.1:80",),
    ),
    "a waypoint by an address nobody has": Case(
        (replace(WEB, waypoint=BY_IP), *TWO), "10.96.0.1:80", NoRoute.UNKNOWN_WAYPOINT
    ),
    "a waypoint that is a workload known by hostname": Case(
        (
            replace(WEB, waypoint=GatewayAddress(NamespacedHostname("default", "gw.example"))),
            workload("gw", "10.0.9.1", hostname="gw.example"),
        ),
        "10.96.0.1:80",
        (WP_HOP,),
    ),
    "a hostname of another namespace is not the waypoint": Case(
        (
            replace(WEB, waypoint=GatewayAddress(NamespacedHostname("x", "gw.example"))),
            workload("gw", "10.0.9.1", hostname="gw.example"),
        ),
        "10.96.0.1:80",
        NoRoute.UNKNOWN_WAYPOINT,
    ),
    "PASSTHROUGH behind a waypoint": Case(
        (balanced(LoadBalancingMode.PASSTHROUGH, waypoint=waypoint()), WP, WP_POD), "10.96.0.1:80", (WP_HOP,)
    ),
    "the waypoint itself goes to the endpoints": Case((GUARDED, *TWO, WP, WP_POD), "10.96.0.1:80", (A, B), WP_POD),
    "the waypoint's identity on another address is not the waypoint": Case(
        (GUARDED, *TWO, WP, WP_POD), "10.96.0.1:80", (WP_HOP,), replace(WP_POD, addresses=(ip_address("10.0.9.7"),))
    ),
    "the waypoint's address with another identity is not the waypoint": Case(
        (GUARDED, *TWO, WP, WP_POD), "10.96.0.1:80", (WP_HOP,), replace(WP_POD, service_account="thief")
    ),
    "a pod behind a waypoint": Case(
        (replace(PEER, waypoint=waypoint()), WP, WP_POD), "10.0.0.2:8080", (hbone("10.0.9.1", "10.0.0.2:8080"),)
    ),
    "a pod behind an unknown waypoint is never reached past it": Case(
        (replace(PEER, waypoint=waypoint()),), "10.0.0.2:8080", NoRoute.UNKNOWN_WAYPOINT
    ),
    "a plain pod behind a waypoint": Case(
        (replace(PLAIN, waypoint=waypoint()), WP, WP_POD), "10.0.0.3:80", (hbone("10.0.9.1", "10.0.0.3:80"),)
    ),
    "the waypoint goes to its pod": Case(
        (replace(PEER, waypoint=waypoint()), WP, WP_POD), "10.0.0.2:80", (hbone("10.0.0.2", "10.0.0.2:80"),), WP_POD
    ),
    "a service's endpoint does not use the pod's waypoint": Case(
        (WEB, replace(TWO[0], waypoint=waypoint()), WP, WP_POD), "10.96.0.1:80", (A,)
    ),
    "a canary alone": Case((weighted(("wp", 10)), *TWO, WP, WP_POD), "10.96.0.1:80", (WP_HOP,)),
    "a canary that is not there leaves it to the other": Case(
        (weighted(("wp", 90), ("canary", 10)), *TWO, WP, WP_POD), "10.96.0.1:80", (WP_HOP,)
    ),
    "no canary is there, the waypoint takes all": Case(
        (weighted(("x", 90), ("y", 10), waypoint=waypoint()), *TWO, WP, WP_POD), "10.96.0.1:80", (WP_HOP,)
    ),
    "none of them is there": Case((weighted(("x", 90), ("y", 10)), *TWO), "10.96.0.1:80", NoRoute.UNKNOWN_WAYPOINT),
    "canaries without weight": Case((weighted(("wp", 0)), *TWO, WP, WP_POD), "10.96.0.1:80", NoRoute.UNKNOWN_WAYPOINT),
}

TABLE = {**DIRECT, **SERVICES, **BALANCING, **WAYPOINTS}
