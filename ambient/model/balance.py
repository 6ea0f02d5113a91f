"""Which endpoints of a service a client may be sent to, on which address and port. Pure; `route.pick` draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ambient.model.address import IpAddress
from ambient.model.mesh import Mesh, ServiceEndpoint
from ambient.model.workload import (
    Health,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    LoadBalancingMode,
    Scope,
    Service,
    Workload,
)


@dataclass(frozen=True, slots=True)
class Target:
    """An eligible endpoint: where its application port is. `ip` None: it is only known by name or through a gateway."""

    workload: Workload
    ip: IpAddress | None
    port: int


def eligible(
    mesh: Mesh, service: Service, port: int, source: Workload, wanted: IpAddress | None, *, waypoint: bool = False
) -> tuple[Target, ...]:
    """Healthy endpoints that serve the port, after the service's load-balancing mode; ordered by uid.

    `wanted`: the address dialled, whose family is preferred. `waypoint`: endpoints with an application tunnel need
    not declare the port.
    """
    targets = []
    for endpoint in mesh.endpoints(service.key):
        workload = endpoint.workload
        balancing = service.load_balancing
        if workload.status is not Health.HEALTHY and balancing.health_policy is not HealthPolicy.ALLOW_ALL:
            continue
        target_port = port_of(service, endpoint, port)
        if target_port == 0 and waypoint and workload.application_tunnel is not None:
            target_port = port
        if target_port == 0 or workload.capacity < 1:
            continue
        ip = address_of(workload, service.ip_families, wanted)
        if ip is None and (workload.addresses or not (workload.hostname or workload.network_gateway)):
            continue
        targets.append(Target(workload, ip, target_port))
    return prefer(service.load_balancing, targets, source)


def port_of(service: Service, endpoint: ServiceEndpoint, port: int) -> int:
    """The endpoint's own mapping, else the service's; 0 when neither has the port."""
    for mapping in (endpoint.ports, service.ports):
        for entry in mapping:
            if entry.service_port == port and entry.target_port:
                return entry.target_port
    return 0


def address_of(workload: Workload, families: IpFamilies, wanted: IpAddress | None) -> IpAddress | None:
    """The address of the family dialled if the service allows it, else the first that is allowed."""
    allowed = [
        ip
        for ip in workload.addresses
        if not (families is IpFamilies.IPV4_ONLY and ip.version == 6)
        and not (families is IpFamilies.IPV6_ONLY and ip.version == 4)
    ]
    same = [ip for ip in allowed if wanted is not None and ip.version == wanted.version]
    return next(iter(same or allowed), None)


def prefer(balancing: LoadBalancing, targets: Sequence[Target], source: Workload) -> tuple[Target, ...]:
    """STRICT keeps those that match every preference, FAILOVER those of the highest rank."""
    if balancing.mode is LoadBalancingMode.STRICT:
        scopes = balancing.routing_preference
        return tuple(t for t in targets if all(_same(scope, t.workload, source) for scope in scopes))
    if balancing.mode is LoadBalancingMode.FAILOVER and targets:
        ranks = [_rank(balancing.routing_preference, target.workload, source) for target in targets]
        return tuple(target for target, rank in zip(targets, ranks, strict=True) if rank == max(ranks))
    return tuple(targets)


def _rank(scopes: tuple[Scope, ...], workload: Workload, source: Workload) -> int:
    """How many preferences in a row hold from the start.

    When the first is NETWORK, a local endpoint outranks any remote one, and remote ones are still ordered by the rest.
    """
    bonus = 0
    if scopes and scopes[0] is Scope.NETWORK:
        if _same(Scope.NETWORK, workload, source):
            bonus = len(scopes) - 1
        else:
            scopes = scopes[1:]
    rank = 0
    for scope in scopes:
        if not _same(scope, workload, source):
            break
        rank += 1
    return rank + bonus


def _same(scope: Scope, workload: Workload, source: Workload) -> bool:
    match scope:
        case Scope.REGION:
            return workload.locality.region == source.locality.region
        case Scope.ZONE:
            return workload.locality.zone == source.locality.zone
        case Scope.SUBZONE:
            return workload.locality.subzone == source.locality.subzone
        case Scope.NODE:
            return workload.node == source.node
        case Scope.CLUSTER:
            return workload.cluster_id == source.cluster_id
        case Scope.NETWORK:
            return workload.network == source.network
