"""Which endpoints of a service a client may be sent to, on which address and port. Pure; `Forward.pick` draws.

Every endpoint is considered and comes back with what speaks against it, so that what is shown to people and what is
done are one list.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

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


class WhyNot(StrEnum):
    """Why an endpoint is not chosen. Whatever is first in this order is what is said."""

    REFUSED = "what discovery said of it was not understood"
    UNHEALTHY = "it is not ready, or leaving"
    NO_PORT = "it does not serve this port"
    NO_CAPACITY = "its capacity is 0"
    NO_ADDRESS = "it has no address"
    NOT_A_FAMILY_OF_THE_SERVICE = "it has no address of the service's families"
    NOT_A_FAMILY_OF_THE_CLIENT = "the client has no address of its family"
    NO_GATEWAY = "it is on another network, and no gateway of that is known"
    OUTSIDE = "it is not where the service demands (STRICT)"
    FARTHER = "others are nearer (FAILOVER)"


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint that was considered: where its application port is, and what speaks against it (None: nothing).

    `ip` None without `why`: it is only known by name. `remote`: its address means nothing here, the way is through the
    gateway of its network.
    """

    workload: Workload
    ip: IpAddress | None
    port: int
    why: WhyNot | None = None
    remote: bool = False


def consider(
    mesh: Mesh,
    service: Service,
    port: int,
    source: Workload,
    wanted: IpAddress | None,
    *,
    waypoint: bool = False,
    gateway: bool = False,
) -> tuple[Target, ...]:
    """Every endpoint of the service, ordered by uid; those without `why` share its connections by their capacity.

    `wanted`: the address dialled, whose family is preferred. `waypoint`: the service is one, so endpoints with an
    application tunnel need not declare the port. `gateway`: it is the way to another network, so that its endpoints
    may be of that.
    """
    own, network = versions_of(source), None if gateway else source.network
    found = [
        _considered(service, endpoint, port, own, wanted, waypoint=waypoint, network=network)
        for endpoint in mesh.endpoints(service.key)
    ]
    kept = {id(one) for one in prefer(service.load_balancing, [one for one in found if one.why is None], source)}
    strict = service.load_balancing.mode is LoadBalancingMode.STRICT
    left = WhyNot.OUTSIDE if strict else WhyNot.FARTHER
    return tuple(one if one.why is not None or id(one) in kept else replace(one, why=left) for one in found)


def _considered(
    service: Service,
    endpoint: ServiceEndpoint,
    port: int,
    own: Collection[int],
    wanted: IpAddress | None,
    *,
    waypoint: bool,
    network: str | None,
) -> Target:
    workload = endpoint.workload
    target_port = port_of(service, endpoint, port)
    if target_port == 0 and waypoint and workload.application_tunnel is not None:
        target_port = port
    remote = network is not None and workload.network != network
    ip = address_of(workload, service.ip_families, own, wanted)
    everybody = service.load_balancing.health_policy is HealthPolicy.ALLOW_ALL
    why = None
    if workload.refused:
        why = WhyNot.REFUSED
    elif workload.status is not Health.HEALTHY and not everybody:
        why = WhyNot.UNHEALTHY
    elif target_port == 0:
        why = WhyNot.NO_PORT
    elif workload.capacity < 1:
        why = WhyNot.NO_CAPACITY
    elif remote and workload.network_gateway is None:
        why = WhyNot.NO_GATEWAY
    elif ip is None and not remote and (workload.addresses or not workload.hostname):
        why = _no_address(workload, service.ip_families)
    return Target(workload, ip, target_port, why, remote)


def _no_address(workload: Workload, families: IpFamilies) -> WhyNot:
    if not workload.addresses:
        return WhyNot.NO_ADDRESS
    fitting = any(_allowed(ip, families) for ip in workload.addresses)
    return WhyNot.NOT_A_FAMILY_OF_THE_CLIENT if fitting else WhyNot.NOT_A_FAMILY_OF_THE_SERVICE


def port_of(service: Service, endpoint: ServiceEndpoint, port: int) -> int:
    """The endpoint's own mapping, else the service's; 0 when neither has the port."""
    for mapping in (endpoint.ports, service.ports):
        for entry in mapping:
            if entry.service_port == port and entry.target_port:
                return entry.target_port
    return 0


def versions_of(client: Workload) -> frozenset[int]:
    """IP versions that the client has; one whose addresses are not known is taken to have both."""
    return frozenset(ip.version for ip in client.addresses) or frozenset((4, 6))


def address_of(
    workload: Workload, families: IpFamilies, own: Collection[int], wanted: IpAddress | None
) -> IpAddress | None:
    """The address of the family dialled if the service allows it, else the first that the service allows and the client
    (of which `own` are the IP versions) can reach."""
    if len(workload.addresses) == 1:
        (ip,) = workload.addresses
        return ip if ip.version in own and _allowed(ip, families) else None
    allowed = [ip for ip in workload.addresses if _allowed(ip, families) and ip.version in own]
    same = [ip for ip in allowed if wanted is not None and ip.version == wanted.version]
    return next(iter(same or allowed), None)


def _allowed(ip: IpAddress, families: IpFamilies) -> bool:
    return not (families is IpFamilies.IPV4_ONLY and ip.version == 6) and not (
        families is IpFamilies.IPV6_ONLY and ip.version == 4
    )


def prefer(balancing: LoadBalancing, targets: Sequence[Target], source: Workload) -> tuple[Target, ...]:
    """STRICT keeps those that match every preference, FAILOVER those of the highest rank."""
    if balancing.mode is LoadBalancingMode.STRICT:
        scopes = balancing.routing_preference
        return tuple(t for t in targets if all(_same(scope, t.workload, source) for scope in scopes))
    if balancing.mode is LoadBalancingMode.FAILOVER:
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
