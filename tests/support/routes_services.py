"""Routes to services: endpoints, ports, families, load balancing."""

from __future__ import annotations

from dataclasses import replace

from ambient.model.outcome import NoRoute
from ambient.model.workload import (
    Health,
    HealthPolicy,
    IpFamilies,
    LoadBalancingMode,
    Locality,
    NetworkMode,
    Port,
    Scope,
    TunnelProtocol,
    Visibility,
)
from tests.support.builders import behind, service, workload
from tests.support.routes import (
    ABROAD,
    CLIENT,
    EVERYWHERE,
    FAILOVER,
    FAR,
    NEAR,
    PEER,
    SAME_REGION,
    SAME_ZONE,
    SICK,
    STRICT,
    TUNNEL,
    TWO,
    WEB,
    A,
    B,
    Case,
    balanced,
    cidr,
    ends,
    hbone,
)

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
    "an endpoint that maps a port to nothing leaves it to the service": Case(
        (WEB, behind(workload("a", "10.0.1.1"), WEB, ports=((80, 0),))), "10.96.0.1:80", (A,)
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
    "a port the service does not have and nobody behind it": Case((WEB,), "10.96.0.1:81", NoRoute.NO_SERVICE_PORT),
    "an endpoint with an application tunnel is no waypoint for that": Case(
        (service("web", "10.96.0.1", (80, 0)), replace(TUNNEL, services={WEB.key: ()})),
        "10.96.0.1:80",
        NoRoute.NO_HEALTHY_UPSTREAM,
    ),
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
        (WEB, *ends("a ", hostname="db.example", tunnel_protocol=TunnelProtocol.NONE)),
        "10.96.0.1:80",
        ("db.example:8080",),
    ),
    "an endpoint known by name only that speaks HBONE": Case(
        (WEB, *ends("a ", hostname="db.example")), "10.96.0.1:80", ("db.example:15008>db.example:8080",)
    ),
    "by name only beside one with an address": Case(
        (WEB, *ends("x ", hostname="db.example", tunnel_protocol=TunnelProtocol.NONE), TWO[0]),
        "10.96.0.1:80",
        (A, "db.example:8080"),
    ),
    "an endpoint without any address": Case((WEB, *ends("a ")), "10.96.0.1:80", NoRoute.NO_HEALTHY_UPSTREAM),
    "every endpoint is on another network without a gateway": Case((WEB, ABROAD), "10.96.0.1:80", NoRoute.NO_GATEWAY),
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

NODES = (Scope.NETWORK, Scope.REGION, Scope.ZONE, Scope.SUBZONE, Scope.NODE)
SAME_SUBZONE = ends("subzone 10.0.1.6", node="n6", locality=Locality("r1", "z1", "s1"))


def only(ip: str) -> tuple[str, ...]:
    return (hbone(ip, f"{ip}:8080"),)


BALANCING: dict[str, Case] = {
    "PreferSameNode: the same node": Case(
        (balanced(FAILOVER, *NODES), *EVERYWHERE, *SAME_SUBZONE), "10.96.0.1:80", only("10.0.1.1")
    ),
    "PreferSameNode: then the subzone": Case(
        (balanced(FAILOVER, *NODES), *EVERYWHERE[1:], *SAME_SUBZONE), "10.96.0.1:80", only("10.0.1.6")
    ),
    "PreferSameNode: then the zone": Case(
        (balanced(FAILOVER, *NODES), *EVERYWHERE[1:]), "10.96.0.1:80", only("10.0.1.2")
    ),
    "PreferSameNode: then the region": Case(
        (balanced(FAILOVER, *NODES), *EVERYWHERE[2:]), "10.96.0.1:80", only("10.0.1.3")
    ),
    "PreferSameNode: then anywhere": Case(
        (balanced(FAILOVER, *NODES), *EVERYWHERE[3:]), "10.96.0.1:80", only("10.0.1.4")
    ),
    "FAILOVER by cluster": Case(
        (balanced(FAILOVER, Scope.CLUSTER), *FAR, *SAME_REGION), "10.96.0.1:80", only("10.0.1.3")
    ),
    "preferences without a mode count for nothing": Case(
        (balanced(LoadBalancingMode.STANDARD, Scope.NODE), *NEAR, *FAR), "10.96.0.1:80", (*only("10.0.1.4"), A)
    ),
    "FAILOVER by nothing takes all": Case((balanced(FAILOVER), *NEAR, *FAR), "10.96.0.1:80", (*only("10.0.1.4"), A)),
    "STRICT by nothing takes all": Case((balanced(STRICT), *NEAR, *FAR), "10.96.0.1:80", (*only("10.0.1.4"), A)),
    "STRICT by zone": Case((balanced(STRICT, Scope.ZONE), *NEAR, *SAME_REGION), "10.96.0.1:80", (A,)),
    "STRICT among those that are ready": Case(
        (balanced(STRICT, Scope.NODE), replace(NEAR[0], status=Health.UNHEALTHY), *FAR),
        "10.96.0.1:80",
        NoRoute.NO_HEALTHY_UPSTREAM,
    ),
    "STRICT with publishNotReadyAddresses": Case(
        (balanced(STRICT, Scope.NODE, health=HealthPolicy.ALLOW_ALL), replace(NEAR[0], status=Health.UNHEALTHY), *FAR),
        "10.96.0.1:80",
        (A,),
    ),
    "FAILOVER with publishNotReadyAddresses prefers near to ready": Case(
        (
            balanced(FAILOVER, Scope.NODE, health=HealthPolicy.ALLOW_ALL),
            replace(NEAR[0], status=Health.UNHEALTHY),
            *FAR,
        ),
        "10.96.0.1:80",
        (A,),
    ),
    "FAILOVER does not count the port that the nearest has not": Case(
        (
            balanced(FAILOVER, Scope.NODE, ports=(Port(80, 0),)),
            replace(NEAR[0], services={WEB.key: ()}),
            *SAME_ZONE,
        ),
        "10.96.0.1:80",
        (B,),
    ),
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
