"""Where does a connection that a pod opens go? One pure function over the mesh; every outcome carries its reason.

The address dialled is looked up as a workload first, then as a service address, then in services' blocks. A service
with a waypoint is only reachable through it, and a pod with a waypoint only through that one when it is dialled
directly: a waypoint that cannot be found refuses, it is never bypassed. Otherwise HBONE to the endpoint if it speaks
it, else plain TCP. What is on another network is reached by a service's name through that network's gateway, or not
at all. What is in nobody's registry passes through (or is refused when `registry_only`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

from ambient.model.address import HBONE_PORT, ZTUNNEL_PORTS, Endpoint, IpAddress
from ambient.model.balance import Target, eligible
from ambient.model.mesh import Mesh, address_name, blocks_name, hostname_name, service_name, workload_name
from ambient.model.outcome import Forward, Hop, NoRoute, Passthrough, PeerLabels, Plan, Refuse, ServiceLabels
from ambient.model.workload import (
    GatewayAddress,
    LoadBalancingMode,
    NamespacedHostname,
    NetworkAddress,
    Service,
    TunnelProtocol,
    Workload,
)


@dataclass(frozen=True, slots=True)
class Routed:
    """A plan and the names (as in `Changes.names`) it was made from: when one of them changes, ask again."""

    plan: Plan
    depends: frozenset[str]


def route(
    mesh: Mesh, source: Workload, destination: Endpoint, *, network: str = "", registry_only: bool = False
) -> Routed:
    """The plan for a connection from `source` to the address its application dialled. `network` is the node's."""
    return _Router(mesh, source, network, registry_only).route(destination)


def peer_labels(workload: Workload) -> PeerLabels:
    """What telemetry says about a workload; the principal is the SPIFFE URI it would present."""
    return PeerLabels(
        workload=workload.workload_name,
        pod=workload.name,
        namespace=workload.namespace,
        canonical_service=workload.canonical_name,
        canonical_revision=workload.canonical_revision,
        principal=str(workload.identity),
        cluster=workload.cluster_id,
        region=workload.locality.region,
        zone=workload.locality.zone,
    )


def waypoint_principals(mesh: Mesh, workload: Workload) -> tuple[str, ...]:
    """SPIFFE URIs of the waypoints in front of a workload: only these may reach it. () = no waypoint.

    A waypoint that is configured but unknown gives a tuple that no peer can satisfy ("").
    """
    services = (mesh.service(key) for key in workload.services)
    gateways = [workload.waypoint, *(w for service in services if service is not None for w in _waypoints_of(service))]
    principals: set[str] = set()
    configured = False
    for gateway in gateways:
        if gateway is not None:
            configured = True
            principals.update(_identities_behind(mesh, gateway, workload))
    return tuple(sorted(principals)) if principals else ("",) if configured else ()


def _waypoints_of(service: Service) -> list[GatewayAddress]:
    weighted = [entry.destination for entry in service.weighted_waypoints]
    return weighted + ([service.waypoint] if service.waypoint is not None else [])


def _identities_behind(mesh: Mesh, gateway: GatewayAddress, client: Workload) -> set[str]:
    router = _Router(mesh, client, client.network, False)
    service, workload = router.gateway_target(gateway)
    if service is not None:
        behind = {str(endpoint.workload.identity) for endpoint in mesh.endpoints(service.key)}
        return behind | set(service.subject_alt_names)
    return {str(workload.identity)} if workload is not None else set()


class _Unroutable(Exception):
    """Leaves the router with the plan that refuses."""

    def __init__(self, reason: NoRoute, detail: str) -> None:
        super().__init__(detail)
        self.plan = Refuse(reason, detail)


class _Router:
    """One routing decision; collects what it depended on."""

    def __init__(self, mesh: Mesh, source: Workload, network: str, registry_only: bool) -> None:
        self._mesh = mesh
        self._source = source
        self._network = network
        self._registry_only = registry_only
        self._depends = {workload_name(source.uid)}

    def route(self, destination: Endpoint) -> Routed:
        try:
            plan = self._plan(destination)
        except _Unroutable as unroutable:
            plan = unroutable.plan
        return Routed(plan, frozenset(self._depends))

    def _plan(self, destination: Endpoint) -> Plan:
        ip = destination.ip
        own = ip.is_loopback or ip.is_unspecified or ip in self._source.addresses
        if own and destination.port in ZTUNNEL_PORTS:
            raise _Unroutable(NoRoute.LOOP_TO_ZTUNNEL, f"port {destination.port} of the pod itself belongs to ztunnel")
        if own:
            return Passthrough("the pod's own address")
        self._depends.add(address_name(self._network, ip))
        workload = self._mesh.workload_by_address(self._network, ip)
        if workload is not None:
            return self._to_workload(workload, destination)
        service = self._mesh.service_by_address(self._network, ip, self._source.namespace)
        if service is None or ip not in {address.ip for address in service.addresses}:
            self._depends.add(blocks_name(self._network))
        if service is not None:
            return self._to_service(service, destination)
        if self._registry_only:
            raise _Unroutable(NoRoute.NOT_IN_REGISTRY, f"{ip} is no address of a workload or service")
        return Passthrough("no address of the mesh")

    def _to_workload(self, workload: Workload, destination: Endpoint) -> Plan:
        self._depends.add(workload_name(workload.uid))
        if workload.waypoint is not None and not self._is_source(workload.waypoint):
            return Forward(self._through(workload.waypoint, destination, ""))
        return Forward((_direct(Target(workload, destination.ip, destination.port), ()),))

    def _to_service(self, service: Service, destination: Endpoint) -> Plan:
        self._depends.add(service_name(service.key))
        labels = ServiceLabels(service.hostname, service.namespace, service.name)
        waypoints = _waypoints_of(service)
        if waypoints and not any(self._is_source(waypoint) for waypoint in waypoints):
            return Forward(self._through_any(service, destination), labels)
        if service.load_balancing.mode is LoadBalancingMode.PASSTHROUGH:
            return Passthrough(f"service {service.key} asks for it")
        targets = self._targets(service, destination.port, destination.ip)
        sans, authority = service.subject_alt_names, f"{service.hostname}:{destination.port}"
        return Forward(self._hops(targets, sans, authority, lambda target: _direct(target, sans)), labels)

    def _targets(
        self, service: Service, port: int, wanted: IpAddress | None, *, waypoint: bool = False
    ) -> Sequence[Target]:
        """The eligible endpoints of a service; refuses when there are none."""
        targets = eligible(self._mesh, service, port, self._source, wanted, waypoint=waypoint)
        if not targets:
            declared = any(entry.service_port == port for entry in service.ports)
            if not declared and self._mesh.endpoints(service.key):
                raise _Unroutable(NoRoute.NO_SERVICE_PORT, f"{service.key} has no port {port}")
            raise _Unroutable(NoRoute.NO_HEALTHY_UPSTREAM, f"{service.key} has no endpoint for port {port}")
        return targets

    def _hops(
        self, targets: Sequence[Target], sans: tuple[str, ...], authority: str, near: Callable[[Target], Hop]
    ) -> tuple[Hop, ...]:
        """Hops to each target: `near` makes those on our network, to others it goes through their network's gateway.
        Those that cannot be reached are left to the others."""
        groups: list[tuple[int, tuple[Hop, ...]]] = []
        problem: _Unroutable | None = None
        for target in targets:
            workload = target.workload
            try:
                if workload.network != self._network:
                    groups.append((max(1, workload.capacity), self._abroad(workload, sans, authority)))
                elif target.ip is not None:
                    groups.append((max(1, workload.capacity), (near(target),)))
                else:
                    raise _Unroutable(NoRoute.NOT_SUPPORTED, f"{workload.uid} is known by name only")
            except _Unroutable as unroutable:
                problem = unroutable
        if problem is not None and not groups:
            raise problem
        if all(len(hops) == 1 for _, hops in groups):
            return tuple(replace(hop, weight=share) for share, (hop,) in groups)
        return _weighted(groups)

    # --- other networks

    def _abroad(self, workload: Workload, sans: tuple[str, ...], authority: str) -> tuple[Hop, ...]:
        """HBONE to each endpoint of the workload's network gateway, and inside it HBONE to `authority`. There only the
        names of its service (`sans`) are believed: what stands for another network's endpoints has no identity."""
        where = f"{workload.uid} on network {workload.network!r}"
        if not authority:
            raise _Unroutable(NoRoute.NO_GATEWAY, f"no service for target address: {where}")
        if workload.network_gateway is None:
            raise _Unroutable(NoRoute.NO_GATEWAY, f"{where} has no network gateway")
        if not sans:
            raise _Unroutable(NoRoute.NO_GATEWAY, f"the service of {where} names no identity to expect there")
        try:
            targets, names = self._behind(workload.network_gateway, None)
        except _Unroutable as unroutable:
            raise _Unroutable(NoRoute.NO_GATEWAY, f"gateway of {where}: {unroutable}") from None
        hops = tuple(
            replace(_tunnel(target, authority, names), labels=replace(peer_labels(workload), principal=""), inner=sans)
            for target in targets
            if target.ip is not None
        )
        if not hops:
            raise _Unroutable(NoRoute.NO_GATEWAY, f"gateway of {where} has no address")
        return hops

    def _behind(self, gateway: GatewayAddress, wanted: IpAddress | None) -> tuple[Sequence[Target], tuple[str, ...]]:
        """The endpoints of a gateway's or waypoint's service, or its workload, and further names it may present."""
        service, workload = self.gateway_target(gateway)
        if service is not None:
            return self._targets(service, gateway.hbone_port, wanted, waypoint=True), service.subject_alt_names
        if workload is None:
            raise _Unroutable(NoRoute.UNKNOWN_WAYPOINT, f"unknown waypoint: {gateway.destination}")
        named = gateway.destination.ip if isinstance(gateway.destination, NetworkAddress) else None
        return [Target(workload, named or next(iter(workload.addresses), None), gateway.hbone_port)], ()

    # --- waypoints

    def _through_any(self, service: Service, destination: Endpoint) -> tuple[Hop, ...]:
        """Hops through the service's waypoints by their weights; one that cannot be found is left to the others."""
        found: list[tuple[int, tuple[Hop, ...]]] = []
        problem: _Unroutable | None = None
        authority = f"{service.hostname}:{destination.port}"
        for entry in service.weighted_waypoints:
            if entry.weight > 0:
                try:
                    found.append((entry.weight, self._through(entry.destination, destination, authority)))
                except _Unroutable as unroutable:
                    problem = unroutable
        if found:
            return _weighted(found)
        if service.waypoint is not None:
            return self._through(service.waypoint, destination, authority)
        raise problem or _Unroutable(NoRoute.UNKNOWN_WAYPOINT, f"no waypoint of {service.key} has a weight")

    def _through(self, gateway: GatewayAddress, destination: Endpoint, abroad: str) -> tuple[Hop, ...]:
        """HBONE to each endpoint of the waypoint, with the address that was dialled as authority; `abroad` is the
        authority for one on another network ("": no service was dialled, so that it cannot be named there)."""
        targets, sans = self._behind(gateway, destination.ip)
        hops = self._hops(targets, sans, abroad, lambda target: _tunnel(target, str(destination), sans))
        return tuple(replace(hop, through_waypoint=True) for hop in hops)

    def gateway_target(self, gateway: GatewayAddress) -> tuple[Service | None, Workload | None]:
        """What a gateway address stands for: a service, or else a workload."""
        match gateway.destination:
            case NamespacedHostname() as name:
                self._depends |= {hostname_name(name.hostname), service_name(str(name))}
                service = self._mesh.service(str(name))
                if service is not None:
                    return service, None
                workload = self._mesh.workload_by_hostname(name.hostname)
                return None, workload if workload is not None and workload.namespace == name.namespace else None
            case NetworkAddress() as address:
                self._depends |= {address_name(address.network, address.ip), blocks_name(address.network)}
                workload = self._mesh.workload_by_address(address.network, address.ip)
                if workload is not None:
                    self._depends.add(workload_name(workload.uid))
                    return None, workload
                service = self._mesh.service_by_address(address.network, address.ip, self._source.namespace)
                if service is not None:
                    self._depends.add(service_name(service.key))
                return service, None

    def _is_source(self, gateway: GatewayAddress) -> bool:
        """The client is an endpoint of the waypoint: identity and address are those of one."""
        service, workload = self.gateway_target(gateway)
        behind = [e.workload for e in self._mesh.endpoints(service.key)] if service is not None else [workload]
        return any(
            one is not None
            and one.identity == self._source.identity
            and not set(one.addresses).isdisjoint(self._source.addresses)
            for one in behind
        )


def _direct(target: Target, sans: tuple[str, ...]) -> Hop:
    """Straight to the endpoint: HBONE when it speaks it, else plain TCP."""
    workload, ip = target.workload, target.ip
    assert ip is not None
    if workload.tunnel_protocol is TunnelProtocol.NONE:
        return Hop(str(ip), target.port, weight=max(1, workload.capacity), labels=peer_labels(workload))
    return _tunnel(replace(target, port=HBONE_PORT), str(Endpoint(ip, target.port)), sans)


def _tunnel(target: Target, authority: str, sans: tuple[str, ...]) -> Hop:
    """HBONE to the target's own port."""
    return Hop(
        ip=str(target.ip),
        port=target.port,
        authority=authority,
        expected=_identities(target.workload, sans),
        weight=max(1, target.workload.capacity),
        labels=peer_labels(target.workload),
    )


def _identities(workload: Workload, sans: tuple[str, ...]) -> tuple[str, ...]:
    return (str(workload.identity), *(san for san in sans if san != str(workload.identity)))


def _weighted(groups: Sequence[tuple[int, tuple[Hop, ...]]]) -> tuple[Hop, ...]:
    """All hops, with integer weights such that each group gets its share and its hops keep theirs within it."""
    totals = [sum(hop.weight for hop in hops) for _, hops in groups]
    scaled = [
        replace(hop, weight=share * hop.weight * prod(totals) // total)
        for (share, hops), total in zip(groups, totals, strict=True)
        for hop in hops
    ]
    common = gcd(*(hop.weight for hop in scaled))
    return tuple(replace(hop, weight=hop.weight // common) for hop in scaled)
