"""Routes where several have what was dialled, and where what has it was not understood: who counts."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from ambient.model.outcome import NoRoute
from ambient.model.workload import (
    Health,
    IpFamilies,
    LoadBalancingMode,
    NetworkAddress,
    NetworkMode,
    Service,
    TunnelProtocol,
    Visibility,
    Workload,
)
from tests.support.builders import behind, service, waypoint, workload
from tests.support.routes import CLIENT, PEER, TWO, WEB, A, Case, balanced, cidr, ends, hbone

SHARED = "10.0.0.2:80"
PLAIN_POD = workload("plainer", "10.0.0.2", tunnel_protocol=TunnelProtocol.NONE)
ENTRY = workload("entry", "10.0.0.2", uid="Kubernetes/networking.istio.io/WorkloadEntry/default/entry")
PLAIN_ENTRY = replace(ENTRY, uid=f"{ENTRY.uid}-plain", tunnel_protocol=TunnelProtocol.NONE)
HOST = workload(
    "host", "10.0.0.50", tunnel_protocol=TunnelProtocol.NONE, network_mode=NetworkMode.HOST_NETWORK, node="n5"
)
FOUR = replace(CLIENT, addresses=(ip_address("10.0.0.1"),))
SIX = replace(CLIENT, addresses=(ip_address("fd00::1"),))
WEST = replace(CLIENT, network="west")


def one(name: str, ip: str, *, of: Service) -> Workload:
    return behind(workload(name, ip), of)


def block(text: str, **changes: object) -> Service:
    """A service with this block and a host name of its own."""
    made = cidr(text)
    return replace(made, hostname=f"{text.replace('/', '-').replace(':', '-')}.example", **changes)  # type: ignore[arg-type]


WIDE, NARROW = block("10.8.0.0/16"), block("10.8.1.0/24")
FOREIGN = replace(NARROW, namespace="x")
TWIN = replace(WEB, hostname="twin.example", canonical=False)
BEHIND = replace(WEB, waypoint=waypoint())
OUTER = behind(workload("outer", "10.9.0.7", tunnel_protocol=TunnelProtocol.NONE), BEHIND)
THEIRS = replace(WEB, namespace="x", hostname="web.x.svc.cluster.local")

RIVALS: dict[str, Case] = {
    "a pod that speaks HBONE before a plain one": Case(
        (PLAIN_POD, workload("zz", "10.0.0.2")), SHARED, (hbone("10.0.0.2", SHARED),)
    ),
    "a plain pod before what is no pod": Case((PLAIN_POD, ENTRY), SHARED, (SHARED,)),
    "of what is no pod, what speaks HBONE": Case((ENTRY, PLAIN_ENTRY), SHARED, (hbone("10.0.0.2", SHARED),)),
    "a pod that is ready before one that is leaving": Case(
        (workload("a", "10.0.0.2", status=Health.UNHEALTHY, refused="junk"), workload("b", "10.0.0.2")),
        SHARED,
        (hbone("10.0.0.2", SHARED),),
    ),
    "a pod before the host network with its address": Case(
        (replace(HOST, addresses=PEER.addresses), PEER), SHARED, (hbone("10.0.0.2", SHARED),)
    ),
    "a service of the client's namespace before one of another": Case(
        (replace(THEIRS, canonical=True), one("x", "10.0.1.9", of=THEIRS), replace(WEB, canonical=False), TWO[0]),
        "10.96.0.1:80",
        (A,),
    ),
    "a canonical service before another": Case(
        (
            replace(TWIN, hostname="a.example"),
            one("x", "10.0.1.9", of=replace(TWIN, hostname="a.example")),
            WEB,
            TWO[0],
        ),
        "10.96.0.1:80",
        (A,),
    ),
    "the first of equal services": Case(
        (replace(WEB, canonical=False), TWO[0], TWIN, one("x", "10.0.1.9", of=TWIN)),
        "10.96.0.1:80",
        (hbone("10.0.1.9", "10.0.1.9:8080"),),
    ),
    "a service that the client may not see leaves the address to the one it may": Case(
        (
            replace(THEIRS, visibility=Visibility.NAMESPACE),
            one("x", "10.0.1.9", of=THEIRS),
            replace(WEB, namespace="y", hostname="web.y.svc.cluster.local"),
            one("y", "10.0.1.8", of=replace(WEB, namespace="y", hostname="web.y.svc.cluster.local")),
        ),
        "10.96.0.1:80",
        (hbone("10.0.1.8", "10.0.1.8:8080"),),
    ),
    "the narrower of two blocks": Case(
        (WIDE, one("w", "10.0.1.1", of=WIDE), NARROW, one("n", "10.0.1.2", of=NARROW)),
        "10.8.1.9:443",
        (hbone("10.0.1.2", "10.0.1.2:443"),),
    ),
    "the wider block where the narrower ends": Case(
        (WIDE, one("w", "10.0.1.1", of=WIDE), NARROW, one("n", "10.0.1.2", of=NARROW)),
        "10.8.2.9:443",
        (hbone("10.0.1.1", "10.0.1.1:443"),),
    ),
    "a block of the client's namespace before a narrower one of another": Case(
        (WIDE, one("w", "10.0.1.1", of=WIDE), FOREIGN, one("n", "10.0.1.2", of=FOREIGN)),
        "10.8.1.9:443",
        (hbone("10.0.1.1", "10.0.1.1:443"),),
    ),
    "a canonical block before another of its length": Case(
        (
            replace(WIDE, hostname="a.example", canonical=False),
            one("w", "10.0.1.1", of=replace(WIDE, hostname="a.example")),
            WIDE,
            one("c", "10.0.1.2", of=WIDE),
        ),
        "10.8.1.9:443",
        (hbone("10.0.1.2", "10.0.1.2:443"),),
    ),
    "a block that the client may not see": Case(
        (replace(FOREIGN, visibility=Visibility.NAMESPACE),), "10.8.1.9:443", "pass"
    ),
    "an address before the block around it": Case(
        (
            WIDE,
            one("w", "10.0.1.2", of=WIDE),
            replace(WEB, addresses=(NetworkAddress("", ip_address("10.8.1.9")),)),
            TWO[0],
        ),
        "10.8.1.9:80",
        (A,),
    ),
    "a block of IPv6 addresses": Case(
        (block("2001:db8::/32"), one("six", "fd01::1", of=block("2001:db8::/32"))),
        "[2001:db8::7]:443",
        ("[fd01::1]:15008>[fd01::1]:443",),
    ),
    "a block on another network": Case(
        (replace(WIDE, addresses=(NetworkAddress("east", ip_address("10.8.0.0"), 16),)),), "10.8.1.9:443", "pass"
    ),
    "a service's address on another network": Case(
        (replace(WEB, addresses=(NetworkAddress("east", ip_address("10.96.0.1")),)), *TWO), "10.96.0.1:80", "pass"
    ),
    "on a named network its own addresses count": Case(
        (replace(PEER, network="west"),), "10.0.0.2:80", (hbone("10.0.0.2", "10.0.0.2:80"),), WEST, network="west"
    ),
    "on a named network others' addresses are nobody's": Case((PEER,), "10.0.0.2:80", "pass", WEST, network="west"),
    "on a named network its own services count": Case(
        (
            replace(WEB, addresses=(NetworkAddress("west", ip_address("10.96.0.1")),)),
            *ends("a 10.0.1.1", network="west"),
        ),
        "10.96.0.1:80",
        (A,),
        WEST,
        network="west",
    ),
}

DOUBTS: dict[str, Case] = {
    "a pod of which nothing was understood": Case(
        (replace(PEER, refused="junk"),), "10.0.0.2:80", NoRoute.NOT_UNDERSTOOD
    ),
    "a service of which nothing was understood": Case(
        (replace(WEB, refused="junk"), *TWO), "10.96.0.1:80", NoRoute.NOT_UNDERSTOOD
    ),
    "a block of which nothing was understood": Case(
        (replace(WIDE, refused="junk"),), "10.8.1.9:443", NoRoute.NOT_UNDERSTOOD
    ),
    "an endpoint of which nothing was understood": Case(
        (WEB, *TWO, replace(ends("c 10.0.1.3")[0], refused="junk")),
        "10.96.0.1:80",
        (A, hbone("10.0.1.2", "10.0.1.2:8080")),
    ),
    "not one endpoint was understood": Case(
        (WEB, replace(TWO[0], refused="junk")), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM
    ),
    "a node's address that workloads share": Case((HOST,), "10.0.0.50:9100", "pass"),
    "a node's address that workloads share under REGISTRY_ONLY": Case(
        (HOST,), "10.0.0.50:9100", "pass", registry_only=True
    ),
    "a node's address that nobody shares under REGISTRY_ONLY": Case(
        (HOST,), "10.0.0.51:9100", NoRoute.NOT_IN_REGISTRY, registry_only=True
    ),
    "a port beside those of a PASSTHROUGH service": Case(
        (balanced(LoadBalancingMode.PASSTHROUGH),), "10.96.0.1:22", "pass"
    ),
    "a port beside those of a PASSTHROUGH service under REGISTRY_ONLY": Case(
        (balanced(LoadBalancingMode.PASSTHROUGH),), "10.96.0.1:22", NoRoute.NO_SERVICE_PORT, registry_only=True
    ),
    "a PASSTHROUGH service that names no port under REGISTRY_ONLY": Case(
        (balanced(LoadBalancingMode.PASSTHROUGH, ports=()),), "10.96.0.1:22", "pass", registry_only=True
    ),
    "a block under REGISTRY_ONLY": Case(
        (replace(WIDE, load_balancing=balanced(LoadBalancingMode.PASSTHROUGH).load_balancing),),
        "10.8.1.9:443",
        "pass",
        registry_only=True,
    ),
    "a service without endpoints under REGISTRY_ONLY": Case(
        (WEB,), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM, registry_only=True
    ),
    "under REGISTRY_ONLY an endpoint outside of a service with a waypoint": Case(
        (BEHIND, OUTER), "10.9.0.7:22", NoRoute.PAST_A_WAYPOINT, registry_only=True
    ),
    "the same without it": Case((BEHIND, OUTER), "10.9.0.7:22", ("10.9.0.7:22",)),
    "under REGISTRY_ONLY one of a service without a waypoint, too": Case(
        (BEHIND, TWIN, behind(behind(OUTER, BEHIND), TWIN)), "10.9.0.7:22", ("10.9.0.7:22",), registry_only=True
    ),
    "under REGISTRY_ONLY one that somebody else has without a waypoint as well": Case(
        (BEHIND, OUTER, THEIRS, behind(replace(OUTER, uid="a", services={}), THEIRS)),
        "10.9.0.7:22",
        NoRoute.PAST_A_WAYPOINT,
        registry_only=True,
    ),
    "under REGISTRY_ONLY an endpoint in the mesh, whose ztunnel judges": Case(
        (BEHIND, *TWO), "10.0.1.1:8080", (hbone("10.0.1.1", "10.0.1.1:8080"),), registry_only=True
    ),
    "loopback under REGISTRY_ONLY": Case((), "127.0.0.1:8080", "pass", registry_only=True),
    "an IPv4 client and an IPv6 endpoint": Case(
        (WEB, *ends("a fd01::1")), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM, FOUR
    ),
    "an IPv6 client and an IPv4 endpoint": Case(
        (WEB, *ends("a 10.0.1.1")), "[fd96::1]:80", NoRoute.NO_HEALTHY_UPSTREAM, SIX
    ),
    "an IPv4 client and endpoints of each family": Case(
        (WEB, *ends("a 10.0.1.1", "b fd01::1")), "10.96.0.1:80", (A,), FOUR
    ),
    "an IPv4 client and an endpoint of both families": Case(
        (WEB, *ends("a fd01::1,10.0.1.1")), "10.96.0.1:80", (A,), FOUR
    ),
    "a client of which no address is known may have both families": Case(
        (WEB, *ends("a fd01::1")), "10.96.0.1:80", ("[fd01::1]:15008>[fd01::1]:8080",), replace(CLIENT, addresses=())
    ),
    "an endpoint whose addresses do not fit is not looked up by its name": Case(
        (replace(WEB, ip_families=IpFamilies.IPV4_ONLY), *ends("a fd01::1", hostname="db.example")),
        "10.96.0.1:80",
        NoRoute.NO_HEALTHY_UPSTREAM,
    ),
    "a port that only the endpoint knows": Case(
        (service("web", "10.96.0.1", (80, 8080)), behind(workload("a", "10.0.1.1"), WEB, ports=((99, 9999),))),
        "10.96.0.1:99",
        (hbone("10.0.1.1", "10.0.1.1:9999"),),
    ),
    "a pod of a headless service is reached on the port dialled": Case(
        (service("web", "", (80, 8080)), TWO[0]), "10.0.1.1:80", (hbone("10.0.1.1", "10.0.1.1:80"),)
    ),
}
