"""Destinations on other networks: what goes through whose gateway, and what does not go at all."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from ambient.model.outcome import NoRoute
from ambient.model.workload import (
    GatewayAddress,
    Health,
    LoadBalancing,
    LoadBalancingMode,
    Locality,
    NamespacedHostname,
    NetworkAddress,
    Scope,
    TunnelProtocol,
    Workload,
)
from tests.support.builders import behind, service, waypoint, workload
from tests.support.routes import CLIENT, FAILOVER, PEER, TWO, WEB, WP, WP_HOP, A, B, Case

SANS = ("spiffe://cluster.local/ns/default/sa/a",)
GLOBAL = replace(WEB, subject_alt_names=SANS)
EAST = GatewayAddress(NetworkAddress("east", ip_address("192.0.2.1")))
EAST_GW = workload("east-gw", "192.0.2.1", network="east")
BY_NAME = GatewayAddress(NamespacedHostname("default", "gw.default.svc.cluster.local"))
GW = service("gw", "192.0.2.9", (15008, 15108))
GW_PODS = tuple(behind(workload(f"gw-{n}", f"192.0.2.{n}", network="east"), GW) for n in (2, 3))


def split(gateway: GatewayAddress | None = EAST, **changes: object) -> Workload:
    """What stands for the endpoints of a service on network east: no address, only a gateway."""
    away = replace(workload("away", ""), network="east", network_gateway=gateway)
    return replace(behind(away, WEB), **changes)  # type: ignore[arg-type]


THERE = "web.default.svc.cluster.local:80"
OVER = f"192.0.2.1:15008>>{THERE}"
GUARDED = replace(GLOBAL, waypoint=waypoint())
WP_GLOBAL = replace(WP, subject_alt_names=("spiffe://cluster.local/ns/default/sa/wp",))
WP_AWAY = behind(replace(workload("wp-away", ""), network="east", network_gateway=EAST), WP)

GATEWAYS: dict[str, Case] = {
    "a service with endpoints on another network only": Case((GLOBAL, split(), EAST_GW), "10.96.0.1:80", (OVER,)),
    "the authority is the name, however it was dialled": Case((GLOBAL, split(), EAST_GW), "[fd96::1]:80", (OVER,)),
    "local endpoints have no precedence of their own": Case(
        (GLOBAL, *TWO, split(), EAST_GW), "10.96.0.1:80", (A, OVER, B)
    ),
    "FAILOVER with NETWORK first prefers the local ones": Case(
        (
            replace(GLOBAL, load_balancing=LoadBalancing(FAILOVER, (Scope.NETWORK,))),
            *(TWO[0], split(), EAST_GW),
        ),
        *("10.96.0.1:80", (A,)),
    ),
    "FAILOVER with NETWORK first goes abroad when nobody is left here": Case(
        (
            replace(GLOBAL, load_balancing=LoadBalancing(FAILOVER, (Scope.NETWORK,))),
            *(replace(TWO[0], status=Health.UNHEALTHY), split(), EAST_GW),
        ),
        *("10.96.0.1:80", (OVER,)),
    ),
    "STRICT by network never leaves it": Case(
        (replace(GLOBAL, load_balancing=LoadBalancing(LoadBalancingMode.STRICT, (Scope.NETWORK,))), split(), EAST_GW),
        *("10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM),
    ),
    "an endpoint elsewhere that has an address is reached through its gateway all the same": Case(
        (GLOBAL, split(addresses=(ip_address("10.0.1.1"),)), EAST_GW), "10.96.0.1:80", (OVER,)
    ),
    "a gateway by the name of its service has all its endpoints and their port": Case(
        (GLOBAL, split(BY_NAME), GW, *GW_PODS),
        *("10.96.0.1:80", (f"192.0.2.2:15108>>{THERE}", f"192.0.2.3:15108>>{THERE}")),
    ),
    "a gateway by the address of its service": Case(
        (
            GLOBAL,
            split(GatewayAddress(NetworkAddress("east", ip_address("192.0.2.9")))),
            replace(GW, addresses=(NetworkAddress("east", ip_address("192.0.2.9")),)),
            *GW_PODS,
        ),
        *("10.96.0.1:80", (f"192.0.2.2:15108>>{THERE}", f"192.0.2.3:15108>>{THERE}")),
    ),
    "a gateway on a port of its own": Case(
        (GLOBAL, split(replace(EAST, hbone_port=15408)), EAST_GW), "10.96.0.1:80", (f"192.0.2.1:15408>>{THERE}",)
    ),
    "the gateway's address on our own network is not the gateway": Case(
        (GLOBAL, split(), replace(EAST_GW, network="")), "10.96.0.1:80", NoRoute.NO_GATEWAY
    ),
    "an unknown gateway": Case((GLOBAL, split()), "10.96.0.1:80", NoRoute.NO_GATEWAY),
    "a gateway without endpoints": Case((GLOBAL, split(BY_NAME), GW), "10.96.0.1:80", NoRoute.NO_GATEWAY),
    "no gateway": Case((GLOBAL, split(None, addresses=(ip_address("10.0.1.1"),))), "10.96.0.1:80", NoRoute.NO_GATEWAY),
    "an unknown gateway leaves it to the local ones": Case((GLOBAL, *TWO, split()), "10.96.0.1:80", (A, B)),
    "a service without names is not believed abroad": Case((WEB, split(), EAST_GW), "10.96.0.1:80", NoRoute.NO_GATEWAY),
    "a waypoint on another network is asked for the service there": Case(
        (GUARDED, *TWO, WP_GLOBAL, WP_AWAY, EAST_GW), "10.96.0.1:80", (OVER,)
    ),
    "a waypoint of a pod on another network cannot be told which": Case(
        (replace(PEER, waypoint=waypoint()), WP_GLOBAL, WP_AWAY, EAST_GW), "10.0.0.2:80", NoRoute.NO_GATEWAY
    ),
    "a waypoint on another network without names is not believed": Case(
        (replace(GUARDED, subject_alt_names=()), *TWO, WP, WP_AWAY, EAST_GW), "10.96.0.1:80", NoRoute.NO_GATEWAY
    ),
    "waypoints here and there": Case(
        (GUARDED, WP_GLOBAL, behind(workload("wp", "10.0.9.1"), WP), WP_AWAY, EAST_GW), "10.96.0.1:80", (WP_HOP, OVER)
    ),
    "a pod of another network is nobody here": Case(
        (replace(PEER, network="east", network_gateway=EAST), EAST_GW), "10.0.0.2:80", "pass"
    ),
    "a plain endpoint stays plain beside one elsewhere": Case(
        (GLOBAL, split(), EAST_GW, replace(TWO[0], tunnel_protocol=TunnelProtocol.NONE)),
        *("10.96.0.1:80", ("10.0.1.1:8080", OVER)),
    ),
}

NAMED = GatewayAddress(NamespacedHostname("default", "gw.example"))

GATEWAY_ODDITIES: dict[str, Case] = {
    "FAILOVER without NETWORK first knows no network": Case(
        (
            replace(GLOBAL, load_balancing=LoadBalancing(FAILOVER, (Scope.REGION, Scope.ZONE))),
            *(replace(TWO[0], locality=Locality("r2", "z1")), split(locality=Locality("r1", "z9")), EAST_GW),
        ),
        *("10.96.0.1:80", (OVER,)),
    ),
    "the port asked of the gateway is the service's": Case(
        (replace(service("web", "10.96.0.1", (8443, 9443)), subject_alt_names=SANS), split(), EAST_GW),
        *("10.96.0.1:8443", ("192.0.2.1:15008>>web.default.svc.cluster.local:8443",)),
    ),
    "a service whose names are no identities is not believed abroad": Case(
        (replace(WEB, subject_alt_names=("web.example", "spiffe://x/y")), split(), EAST_GW),
        *("10.96.0.1:80", NoRoute.NO_GATEWAY),
    ),
    "a gateway service without a pod that is ready": Case(
        (GLOBAL, split(BY_NAME), GW, replace(GW_PODS[0], status=Health.UNHEALTHY)), "10.96.0.1:80", NoRoute.NO_GATEWAY
    ),
    "a gateway that is a workload known by hostname": Case(
        (GLOBAL, split(NAMED), replace(EAST_GW, hostname="gw.example")), "10.96.0.1:80", (OVER,)
    ),
    "a gateway of which there is only the name": Case(
        (GLOBAL, split(NAMED), replace(EAST_GW, hostname="gw.example", addresses=())),
        *("10.96.0.1:80", (f"gw.example:15008>>{THERE}",)),
    ),
    "a gateway of a family that the client has not": Case(
        (GLOBAL, split(NAMED), replace(EAST_GW, hostname="gw.example", addresses=(ip_address("2001:db8::7"),))),
        *("10.96.0.1:80", NoRoute.NO_GATEWAY),
        source=replace(CLIENT, addresses=(ip_address("10.0.0.1"),)),
    ),
    "the other network does not serve the port": Case(
        (service("web", "10.96.0.1", (80, 0)), split(services={WEB.key: ()}), EAST_GW),
        *("10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM),
    ),
    "nothing is ready on the other network": Case(
        (GLOBAL, split(status=Health.UNHEALTHY), EAST_GW), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM
    ),
    "a network without capacity": Case(
        (GLOBAL, split(capacity=0), EAST_GW), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM
    ),
    "a gateway that was not understood": Case(
        (GLOBAL, split(), replace(EAST_GW, refused="junk")), "10.96.0.1:80", NoRoute.NO_GATEWAY
    ),
    "a waypoint on another network, believed by the service's names": Case(
        (GUARDED, WP, WP_AWAY, EAST_GW), "10.96.0.1:80", (OVER,)
    ),
    "a waypoint by an address of another network": Case(
        (
            replace(GLOBAL, waypoint=GatewayAddress(NetworkAddress("east", ip_address("10.0.9.1")))),
            *(workload("wp", "10.0.9.1", network="east", network_gateway=EAST), EAST_GW),
        ),
        *("10.96.0.1:80", (OVER,)),
    ),
    "a waypoint by an address of another network without a gateway": Case(
        (
            replace(GLOBAL, waypoint=GatewayAddress(NetworkAddress("east", ip_address("10.0.9.1")))),
            workload("wp", "10.0.9.1", network="east"),
        ),
        *("10.96.0.1:80", NoRoute.NO_GATEWAY),
    ),
}
