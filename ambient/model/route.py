"""Where does a connection that a pod opens go? One pure function over the mesh; every outcome carries its reason.

The address dialled is looked up as a workload first, then as a service address, then in services' blocks. A service
with a waypoint is only reachable through it, and a pod with a waypoint only through that one when it is dialled
directly (so is, with `registry_only`, an endpoint of such a service that has no tunnel): a waypoint that cannot be
found refuses, it is never bypassed. Otherwise HBONE to the endpoint if it speaks
it, else plain TCP; an endpoint on another network through the gateway of that, in two tunnels. What is in nobody's
registry passes through (or is refused when `registry_only`); what discovery said something about that was not
understood is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import gcd, lcm
from typing import Final

from ambient.model.address import HBONE_PORT, ZTUNNEL_PORTS, Endpoint
from ambient.model.balance import Target, WhyNot, address_of, consider, versions_of
from ambient.model.mesh import Mesh, address_name, blocks_name, service_name, workload_name
from ambient.model.outcome import Forward, Hop, NoRoute, Passthrough, PeerLabels, Plan, Refuse, ServiceLabels
from ambient.model.waypoints import gateway_target, names_of, waypoints_of
from ambient.model.workload import (
    GatewayAddress,
    IpFamilies,
    LoadBalancingMode,
    NetworkAddress,
    Service,
    TunnelProtocol,
    Workload,
)

_HEAVIEST: Final = 1 << 31
_FINEST: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Routed:
    """A plan and what it was made from.

    `depends`: names as in `Changes.names`; when one of them changes, ask again. `passed_over`: endpoints that were
    considered and not chosen, each with its reason.
    """

    plan: Plan
    depends: frozenset[str]
    passed_over: tuple[Target, ...] = ()


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
        self._passed_over: list[Target] = []

    def route(self, destination: Endpoint) -> Routed:
        try:
            plan = self._plan(destination)
        except _Unroutable as unroutable:
            plan = unroutable.plan
        return Routed(plan, frozenset(self._depends), tuple(self._passed_over))

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
        if service is None or ip not in {vip.ip for vip in service.addresses if vip.prefix_length is None}:
            self._depends.add(blocks_name(self._network))
        if service is not None:
            return self._to_service(service, destination)
        if self._mesh.is_host_address(self._network, ip):
            return Passthrough("a node's address, which workloads of the mesh share")
        if self._registry_only:
            raise _Unroutable(NoRoute.NOT_IN_REGISTRY, f"{ip} is no address of a workload or service")
        return Passthrough("no address of the mesh")

    def _to_workload(self, workload: Workload, destination: Endpoint) -> Plan:
        self._depends.add(workload_name(workload.uid))
        if workload.refused:
            raise _Unroutable(NoRoute.NOT_UNDERSTOOD, f"workload {workload.uid}: {workload.refused}")
        if workload.waypoint is not None and not self._is_source(workload.waypoint):
            return Forward(self._through(workload.waypoint, destination, None))
        if self._registry_only and workload.tunnel_protocol is TunnelProtocol.NONE:
            self._past_no_waypoint(destination)
        return Forward((_direct(Target(workload, destination.ip, destination.port), ()),))

    def _past_no_waypoint(self, destination: Endpoint) -> None:
        """Refuses an address without a tunnel, so without a ztunnel that would take nobody but its waypoint, when it is
        an endpoint of services with waypoints alone: what is in the registry for these is reached through them."""
        for workload in self._mesh.workloads_at(self._network, destination.ip):
            self._depends |= {workload_name(workload.uid), *map(service_name, workload.services)}
            services = [found for key in workload.services if (found := self._mesh.service(key)) is not None]
            offered = [one for one in services if one.addresses]
            through = [waypoint for one in offered for waypoint in waypoints_of(one)]
            if through and all(map(waypoints_of, offered)) and not any(map(self._is_source, through)):
                why = f"{destination.ip} is an endpoint of {offered[0].key}, which is reached through its waypoint"
                raise _Unroutable(NoRoute.PAST_A_WAYPOINT, why)

    def _to_service(self, service: Service, destination: Endpoint) -> Plan:
        self._depends.add(service_name(service.key))
        if service.refused:
            raise _Unroutable(NoRoute.NOT_UNDERSTOOD, f"service {service.key}: {service.refused}")
        labels = ServiceLabels(service.hostname, service.namespace, service.name)
        waypoints = waypoints_of(service)
        if waypoints and not any(self._is_source(waypoint) for waypoint in waypoints):
            return Forward(self._through_any(service, destination), labels)
        port = destination.port
        if service.load_balancing.mode is LoadBalancingMode.PASSTHROUGH:
            if self._registry_only and service.ports and port not in {entry.service_port for entry in service.ports}:
                raise _Unroutable(NoRoute.NO_SERVICE_PORT, f"{service.key} has no port {port}")
            return Passthrough(f"service {service.key} asks for it")
        if not self._mesh.has_port(service, port):
            raise _Unroutable(NoRoute.NO_SERVICE_PORT, f"{service.key} has no port {port}")
        targets = self._chosen(consider(self._mesh, service, port, self._source, destination.ip), service, port)
        sans = names_of(service)
        return Forward(
            self._joined(
                targets,
                lambda target: _direct(target, sans),
                lambda target: self._across(target, service, port, sans),
            ),
            labels,
        )

    def _chosen(self, considered: Sequence[Target], service: Service, port: int) -> list[Target]:
        """Those against whom nothing speaks; the others are noted. Refuses when nobody is left."""
        chosen = [target for target in considered if target.why is None]
        self._passed_over += [target for target in considered if target.why is not None]
        if chosen:
            return chosen
        if all(entry.service_port != port for entry in service.ports):
            raise _Unroutable(NoRoute.NO_SERVICE_PORT, f"{service.key} has no port {port}")
        if considered and all(target.why is WhyNot.NO_GATEWAY for target in considered):
            raise _Unroutable(NoRoute.NO_GATEWAY, f"every endpoint of {service.key} is on a network without a gateway")
        reasons = Counter(str(target.why) for target in considered)
        why = ", ".join(f"{count}x {reason}" for reason, count in reasons.most_common()) or "it has none at all"
        raise _Unroutable(NoRoute.NO_HEALTHY_UPSTREAM, f"{service.key} has no endpoint for port {port}: {why}")

    def _joined(
        self, targets: Sequence[Target], near: Callable[[Target], Hop], far: Callable[[Target], tuple[Hop, ...]]
    ) -> tuple[Hop, ...]:
        """The hops to these targets, each target with its capacity as weight. Another network that cannot be reached is
        left to the others; when there are no others that refuses."""
        if not any(target.remote for target in targets):
            return tuple(near(target) for target in targets)
        groups: list[tuple[int, tuple[Hop, ...]]] = []
        problem: _Unroutable | None = None
        for target in targets:
            try:
                hops = far(target) if target.remote else (near(target),)
                groups.append((target.workload.capacity, hops))
            except _Unroutable as unroutable:
                problem = unroutable
        if problem is not None and not groups:
            raise problem
        return _weighted(groups)

    # --- other networks

    def _across(
        self, target: Target, service: Service, port: int, sans: tuple[str, ...], *, waypoint: bool = False
    ) -> tuple[Hop, ...]:
        """Hops to the gateway of the target's network, for `port` of the service; `sans`: who may end the inner
        tunnel, since what stands for endpoints over there has no identity of its own."""
        workload = target.workload
        where = f"network {workload.network!r}"
        if not sans:
            raise _Unroutable(NoRoute.NO_GATEWAY, f"{service.key} names no identity to expect on {where}")
        gateway = workload.network_gateway
        if gateway is None:
            raise _Unroutable(NoRoute.NO_GATEWAY, f"no gateway of {where} is known")
        try:
            through = self._gateways(gateway, where)
        except _Unroutable as unroutable:
            raise _Unroutable(NoRoute.NO_GATEWAY, f"gateway of {where}: {unroutable}") from None
        labels = replace(peer_labels(workload), principal="")
        return tuple(
            replace(
                hop,
                authority=f"{service.hostname}:{port}",
                labels=labels,
                inner=sans,
                through_waypoint=waypoint,
            )
            for hop in through
        )

    def _gateways(self, gateway: GatewayAddress, where: str) -> list[Hop]:
        """Where the gateway is and who it must be."""
        service, workload = gateway_target(self._mesh, gateway, self._source.namespace, self._depends)
        if service is not None:
            considered = consider(self._mesh, service, gateway.hbone_port, self._source, None, gateway=True)
            return [
                _located(target, _identities(target.workload, names_of(service)))
                for target in self._chosen(considered, service, gateway.hbone_port)
            ]
        if workload is None:
            raise _Unroutable(NoRoute.NO_GATEWAY, f"unknown: {gateway.destination}")
        return [_located(self._at(workload, gateway), _identities(workload, ()))]

    # --- waypoints

    def _through_any(self, service: Service, destination: Endpoint) -> tuple[Hop, ...]:
        """Hops through the service's waypoints by their weights; one that cannot be found is left to the others."""
        found: list[tuple[int, tuple[Hop, ...]]] = []
        problem: _Unroutable | None = None
        for entry in service.weighted_waypoints:
            if entry.weight > 0:
                try:
                    found.append((entry.weight, self._through(entry.destination, destination, service)))
                except _Unroutable as unroutable:
                    problem = unroutable
        if found:
            return _weighted(found)
        if service.waypoint is not None:
            return self._through(service.waypoint, destination, service)
        raise problem or _Unroutable(NoRoute.UNKNOWN_WAYPOINT, f"no waypoint of {service.key} has a weight")

    def _through(self, gateway: GatewayAddress, destination: Endpoint, asked: Service | None) -> tuple[Hop, ...]:
        """HBONE to each endpoint of the waypoint, with the address that was dialled as authority. `asked`: the service
        that was dialled, if it was one."""
        service, workload = gateway_target(self._mesh, gateway, self._source.namespace, self._depends)
        if service is not None:
            considered = consider(self._mesh, service, gateway.hbone_port, self._source, destination.ip, waypoint=True)
            targets = self._chosen(considered, service, gateway.hbone_port)
            sans = names_of(service)
        elif workload is not None:
            remote = workload.network != self._network
            targets, sans = [replace(self._at(workload, gateway), remote=remote)], ()
        else:
            raise _Unroutable(NoRoute.UNKNOWN_WAYPOINT, f"unknown waypoint: {gateway.destination}")

        def near(target: Target) -> Hop:
            expected = _identities(target.workload, sans)
            return _located(target, expected, authority=str(destination), through_waypoint=True)

        def far(target: Target) -> tuple[Hop, ...]:
            if asked is None:
                why = f"{gateway.destination} is on another network, where only services are reached"
                raise _Unroutable(NoRoute.NO_GATEWAY, why)
            accepted = tuple(dict.fromkeys((*sans, *names_of(asked))))
            return self._across(target, asked, destination.port, accepted, waypoint=True)

        return self._joined(targets, near, far)

    def _at(self, workload: Workload, gateway: GatewayAddress) -> Target:
        """Where the workload is that a gateway address stands for."""
        named = gateway.destination.ip if isinstance(gateway.destination, NetworkAddress) else None
        ip = named or address_of(workload, IpFamilies.AUTOMATIC, versions_of(self._source), None)
        if ip is None and workload.addresses:
            raise _Unroutable(NoRoute.NO_HEALTHY_UPSTREAM, f"{workload.uid} has no address that the client can reach")
        return Target(workload, ip, gateway.hbone_port)

    def _is_source(self, gateway: GatewayAddress) -> bool:
        """The client is an endpoint of the waypoint: identity and address are those of one."""
        service, workload = gateway_target(self._mesh, gateway, self._source.namespace, self._depends)
        behind = [e.workload for e in self._mesh.endpoints(service.key)] if service is not None else [workload]
        return any(
            one is not None
            and one.identity == self._source.identity
            and not set(one.addresses).isdisjoint(self._source.addresses)
            for one in behind
        )


def _located(
    target: Target, expected: tuple[str, ...], *, port: int = 0, authority: str = "", through_waypoint: bool = False
) -> Hop:
    """A hop to where the target is, on its own port; on another `port` it is asked for its own there."""
    workload, ip = target.workload, target.ip
    text = "" if ip is None else str(ip)
    if port:
        host = workload.hostname if ip is None else f"[{text}]" if ip.version == 6 else text
        authority = f"{host}:{target.port}"
    return Hop(
        ip=text,
        port=port or target.port,
        authority=authority,
        expected=expected,
        weight=max(1, workload.capacity),
        labels=peer_labels(workload),
        through_waypoint=through_waypoint,
        hostname=workload.hostname if ip is None else "",
    )


def _direct(target: Target, sans: tuple[str, ...]) -> Hop:
    """Straight to the endpoint: HBONE when it speaks it, else plain TCP."""
    if target.workload.tunnel_protocol is TunnelProtocol.NONE:
        return _located(target, ())
    return _located(target, _identities(target.workload, sans), port=HBONE_PORT)


def _identities(workload: Workload, sans: tuple[str, ...]) -> tuple[str, ...]:
    return (str(workload.identity), *(san for san in sans if san != str(workload.identity)))


def _weighted(groups: Sequence[tuple[int, tuple[Hop, ...]]]) -> tuple[Hop, ...]:
    """All hops, with integer weights such that each group gets its share and its hops keep theirs within it."""
    totals = [sum(hop.weight for hop in hops) for _, hops in groups]
    scale = 1
    for total in totals:
        scale = lcm(scale, total)
        if scale > _FINEST:
            # A common multiple of hundreds of odd capacities has thousands of digits.
            scale = _FINEST
            break
    scaled = [
        replace(hop, weight=max(1, share * hop.weight * scale // total))
        for (share, hops), total in zip(groups, totals, strict=True)
        for hop in hops
    ]
    common = gcd(*(hop.weight for hop in scaled))
    # Shares of many odd capacities grow without bounds; what a share loses by rounding is less than chance takes.
    excess = max(hop.weight for hop in scaled) // common // _HEAVIEST + 1
    return tuple(replace(hop, weight=max(1, hop.weight // common // excess)) for hop in scaled)
