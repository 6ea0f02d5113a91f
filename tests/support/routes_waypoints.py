"""Routes through waypoints: never past them."""

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
    Scope,
    TunnelProtocol,
)
from tests.support.builders import behind, service, waypoint, workload
from tests.support.routes import (
    BARE_WP,
    BY_IP,
    BY_VIP,
    CLIENT,
    FAILOVER,
    GUARDED,
    PEER,
    PLAIN,
    TUNNEL,
    TWO,
    WEB,
    WP,
    WP_HOP,
    WP_POD,
    A,
    B,
    Case,
    balanced,
    hbone,
    weighted,
)

CANARY = service("canary", "10.96.0.8", (15008, 15008))
CANARY_POD = behind(workload("canary", "10.0.9.3"), CANARY)
BY_NAME = GatewayAddress(NamespacedHostname("default", "gw.example"))

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
    "a waypoint with an application tunnel and a port of its own": Case(
        (GUARDED, WP, behind(TUNNEL, WP, ports=((15008, 15108),))), "10.96.0.1:80", ("10.0.9.1:15108>10.96.0.1:80",)
    ),
    "a waypoint's address that a pod and a service have is the pod's": Case(
        (replace(WEB, waypoint=BY_IP), WP_POD, service("thief", "10.0.9.1", (15008, 1))), "10.96.0.1:80", (WP_HOP,)
    ),
    "a waypoint known by one of its pod's addresses": Case(
        (replace(WEB, waypoint=BY_IP), replace(WP_POD, addresses=(ip_address("10.0.9.8"), ip_address("10.0.9.1")))),
        "10.96.0.1:80",
        (WP_HOP,),
    ),
    "a waypoint on another network without a gateway": Case(
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
    "a canary of weight 0 leaves all to the waypoint": Case(
        (weighted(("canary", 0), waypoint=waypoint()), *TWO, WP, WP_POD, CANARY, CANARY_POD), "10.96.0.1:80", (WP_HOP,)
    ),
    "a waypoint and its canary": Case(
        (weighted(("wp", 90), ("canary", 10)), *TWO, WP, WP_POD, CANARY, CANARY_POD),
        "10.96.0.1:80",
        (WP_HOP, hbone("10.0.9.3", "10.96.0.1:80")),
    ),
    "a canary goes to the endpoints, too": Case(
        (weighted(("wp", 90), ("canary", 10)), *TWO, WP, WP_POD, CANARY, CANARY_POD), "10.96.0.1:80", (A, B), CANARY_POD
    ),
    "a waypoint whose pod says it is plain is spoken to in HBONE all the same": Case(
        (GUARDED, WP, replace(WP_POD, tunnel_protocol=TunnelProtocol.NONE)), "10.96.0.1:80", (WP_HOP,)
    ),
    "a waypoint's pod of which nothing was understood": Case(
        (GUARDED, *TWO, WP, replace(WP_POD, refused="junk")), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM
    ),
    "a waypoint of which nothing was understood is never bypassed": Case(
        (GUARDED, *TWO, replace(WP, refused="junk"), WP_POD), "10.96.0.1:80", NoRoute.UNKNOWN_WAYPOINT
    ),
    "a waypoint by the address of a pod that was not understood is never bypassed": Case(
        (replace(WEB, waypoint=BY_IP), *TWO, replace(WP_POD, refused="junk")), "10.96.0.1:80", NoRoute.UNKNOWN_WAYPOINT
    ),
    "the nearest pod of the waypoint": Case(
        (
            GUARDED,
            replace(WP, load_balancing=LoadBalancing(FAILOVER, (Scope.ZONE,))),
            WP_POD,
            behind(workload("near", "10.0.9.5", locality=Locality("r1", "z1")), WP),
        ),
        "10.96.0.1:80",
        (hbone("10.0.9.5", "10.96.0.1:80"),),
    ),
    "a waypoint of a family that the client has not": Case(
        (GUARDED, *TWO, WP, replace(WP_POD, addresses=(ip_address("fd09::1"),))),
        "10.96.0.1:80",
        NoRoute.NO_HEALTHY_UPSTREAM,
        replace(CLIENT, addresses=(ip_address("10.0.0.1"),)),
    ),
    "a waypoint's pod of which there is only the name": Case(
        (GUARDED, WP, replace(WP_POD, addresses=(), hostname="wp.example")),
        "10.96.0.1:80",
        ("wp.example:15008>10.96.0.1:80",),
    ),
    "a waypoint that is a workload of which there is only the name": Case(
        (replace(WEB, waypoint=BY_NAME), workload("gw", "", hostname="gw.example")),
        "10.96.0.1:80",
        ("gw.example:15008>10.96.0.1:80",),
    ),
    "a waypoint that is a workload without anything": Case(
        (replace(WEB, waypoint=BY_NAME), workload("gw", "fd09::1", hostname="gw.example")),
        "10.96.0.1:80",
        NoRoute.NO_HEALTHY_UPSTREAM,
        replace(CLIENT, addresses=(ip_address("10.0.0.1"),)),
    ),
    "the waypoint that is known by its address goes to the endpoints": Case(
        (replace(WEB, waypoint=BY_IP), *TWO, WP_POD), "10.96.0.1:80", (A, B), WP_POD
    ),
    "a waypoint of another namespace": Case(
        (
            replace(WEB, waypoint=waypoint("wp", "infra")),
            service("wp", "", (15008, 15008), namespace="infra"),
            behind(workload("wp", "10.0.9.9", namespace="infra"), service("wp", "", (15008, 15008), namespace="infra")),
            WP,
            WP_POD,
        ),
        "10.96.0.1:80",
        (hbone("10.0.9.9", "10.96.0.1:80"),),
    ),
    "a pod behind a service with a waypoint, dialled by its address": Case(
        (GUARDED, TWO[0], WP, WP_POD), "10.0.1.1:8080", (hbone("10.0.1.1", "10.0.1.1:8080"),)
    ),
    "its own waypoint does not concern a pod that dials itself": Case(
        (replace(CLIENT, waypoint=waypoint()), WP, WP_POD), "10.0.0.1:80", "pass", replace(CLIENT, waypoint=waypoint())
    ),
    "canaries without weight": Case((weighted(("wp", 0)), *TWO, WP, WP_POD), "10.96.0.1:80", NoRoute.UNKNOWN_WAYPOINT),
}
