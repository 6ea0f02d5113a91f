"""istio.workload.Address <-> Workload and Service. Pure and strict; see `ambient.xds.codec`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from sys import intern
from types import MappingProxyType
from typing import Any

from ambient.errors import InvalidInput
from ambient.model.address import HBONE_PORT
from ambient.model.identity import Identity, parse_identity
from ambient.model.workload import (
    ApplicationTunnel,
    AppProtocol,
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
    Port,
    Scope,
    Service,
    TunnelPreamble,
    TunnelProtocol,
    Visibility,
    WeightedWaypoint,
    Workload,
    WorkloadType,
)
from ambient.xds.fields import read_enum, read_ip, read_port

_NO_LOCALITY = Locality()
_DEFAULT_BALANCING = LoadBalancing()
_DEFAULT_TRUST_DOMAIN = "cluster.local"


def decode(address: Any) -> Workload | Service:
    """Read one Address; raises InvalidInput."""
    chosen = address.WhichOneof("type")
    if chosen is None:
        raise InvalidInput("neither a workload nor a service that we know")
    return _workload(address.workload) if chosen == "workload" else _service(address.service)


def _workload(wire: Any) -> Workload:
    if not wire.uid:
        raise InvalidInput("uid is empty")
    if wire.tunnel_protocol == 2:
        raise InvalidInput("tunnel_protocol LEGACY_ISTIO_MTLS is not supported")
    for policy in wire.authorization_policies:
        if len(parts := policy.split("/")) != 2 or not all(parts):
            raise InvalidInput(f"authorization_policies names {policy!r}", why="expected namespace/name")
    name = wire.name
    workload = Workload(
        uid=wire.uid,
        name=name,
        namespace=intern(wire.namespace),
        addresses=tuple(read_ip(raw, "addresses") for raw in wire.addresses),
        network=intern(wire.network),
        tunnel_protocol=read_enum(TunnelProtocol, wire.tunnel_protocol, "tunnel_protocol"),
        trust_domain=intern(wire.trust_domain or _DEFAULT_TRUST_DOMAIN),
        service_account=intern(wire.service_account or "default"),
        waypoint=_gateway(wire.waypoint, "waypoint") if wire.HasField("waypoint") else None,
        node=intern(wire.node),
        canonical_name=_shared(wire.canonical_name, name),
        canonical_revision=intern(wire.canonical_revision),
        workload_type=read_enum(WorkloadType, wire.workload_type, "workload_type"),
        workload_name=_shared(wire.workload_name, name),
        native_tunnel=wire.native_tunnel,
        authorization_policies=tuple(intern(key) for key in wire.authorization_policies),
        status=read_enum(Health, wire.status, "status"),
        cluster_id=intern(wire.cluster_id or "Kubernetes"),
        network_gateway=_gateway(wire.network_gateway, "network_gateway") if wire.HasField("network_gateway") else None,
        hostname=wire.hostname,
        services=_services(
            tuple((intern(key), _endpoint_ports(key, wire.services[key])) for key in sorted(wire.services))
        ),
        application_tunnel=_tunnel(wire.application_tunnel) if wire.HasField("application_tunnel") else None,
        locality=_locality(wire.locality) if wire.HasField("locality") else _NO_LOCALITY,
        network_mode=read_enum(NetworkMode, wire.network_mode, "network_mode"),
        capacity=wire.capacity.value if wire.HasField("capacity") else 1,
    )
    if workload.tunnel_protocol is TunnelProtocol.HBONE:
        _check_identity(workload.trust_domain, workload.namespace, workload.service_account)
    return workload


def _shared(text: str, name: str) -> str:
    """What the pods of an owner have in common is kept once; a pod without an owner is named after itself."""
    return name if text == name else intern(text)


@lru_cache(maxsize=8_192)
def _check_identity(trust_domain: str, namespace: str, service_account: str) -> None:
    """Raises InvalidInput for what makes no identity; the many workloads of one identity are judged once."""
    parse_identity(str(Identity(trust_domain, namespace, service_account)))


def _service(wire: Any) -> Service:
    if not wire.namespace or not wire.hostname or "/" in wire.namespace or "/" in wire.hostname:
        raise InvalidInput("namespace and hostname must both be there, without a slash")
    return Service(
        name=wire.name,
        namespace=intern(wire.namespace),
        hostname=wire.hostname,
        addresses=tuple(_network_address(item, "addresses") for item in wire.addresses),
        ports=tuple(_port(item) for item in wire.ports),
        subject_alt_names=tuple(wire.subject_alt_names),
        waypoint=_gateway(wire.waypoint, "waypoint") if wire.HasField("waypoint") else None,
        load_balancing=_balancing(wire.load_balancing) if wire.HasField("load_balancing") else _DEFAULT_BALANCING,
        ip_families=read_enum(IpFamilies, wire.ip_families, "ip_families"),
        canonical=wire.canonical,
        weighted_waypoints=tuple(
            WeightedWaypoint(_gateway(item.destination, "weighted_waypoints"), item.weight)
            for item in wire.weighted_waypoints
        ),
        visibility=read_enum(Visibility, wire.visibility, "visibility"),
    )


@lru_cache(maxsize=8_192)
def _services(entries: tuple[tuple[str, tuple[Port, ...]], ...]) -> Mapping[str, tuple[Port, ...]]:
    """One mapping for all workloads of the same services: the pods of a deployment share it."""
    return MappingProxyType(dict(entries))


def _endpoint_ports(key: str, wire: Any) -> tuple[Port, ...]:
    namespace, slash, hostname = key.partition("/")
    if not slash or not namespace or not hostname or "/" in hostname:
        raise InvalidInput(f"services names {key!r}", why="expected namespace/hostname")
    return tuple(_port(item) for item in wire.ports)


def _port(wire: Any) -> Port:
    return Port(
        read_port(wire.service_port, "service_port"),
        read_port(wire.target_port, "target_port"),
        read_enum(AppProtocol, wire.app_protocol, "app_protocol"),
    )


def _network_address(wire: Any, field: str) -> NetworkAddress:
    ip = read_ip(wire.address, field)
    if not wire.HasField("length"):
        return NetworkAddress(intern(wire.network), ip)
    length, limit = wire.length, len(wire.address) * 8
    if length > limit:
        raise InvalidInput(f"{field} has prefix length {length}", why=f"at most {limit}")
    if ip.max_prefixlen != limit:
        if length < 96:
            raise InvalidInput(f"{field} has prefix length {length}", why="too short for an IPv4-mapped address")
        length -= 96
    return NetworkAddress(intern(wire.network), ip, length)


def _gateway(wire: Any, field: str) -> GatewayAddress:
    chosen = wire.WhichOneof("destination")
    if chosen is None:
        raise InvalidInput(f"{field} has no destination that we know")
    port = read_port(wire.hbone_mtls_port, f"{field}.hbone_mtls_port") or HBONE_PORT
    if chosen == "address":
        return GatewayAddress(_network_address(wire.address, f"{field}.address"), port)
    if not wire.hostname.hostname:
        raise InvalidInput(f"{field}.hostname is empty")
    return GatewayAddress(NamespacedHostname(intern(wire.hostname.namespace), wire.hostname.hostname), port)


def _balancing(wire: Any) -> LoadBalancing:
    return LoadBalancing(
        read_enum(LoadBalancingMode, wire.mode, "load_balancing.mode"),
        tuple(read_enum(Scope, value, "load_balancing.routing_preference") for value in wire.routing_preference),
        read_enum(HealthPolicy, wire.health_policy, "load_balancing.health_policy"),
    )


def _tunnel(wire: Any) -> ApplicationTunnel:
    return ApplicationTunnel(
        read_enum(TunnelPreamble, wire.protocol, "application_tunnel.protocol"),
        read_port(wire.port, "application_tunnel.port"),
    )


def _locality(wire: Any) -> Locality:
    return Locality(intern(wire.region), intern(wire.zone), intern(wire.subzone))


def encode_workload(workload: Workload, wire: Any) -> None:
    """Fill the (empty) istio.workload.Workload `wire`; receiver's defaults are left out, as istiod does."""
    for name in (
        *("name", "namespace", "network", "service_account", "node", "canonical_name", "canonical_revision"),
        *("workload_name", "native_tunnel", "cluster_id", "uid", "hostname"),
        *("tunnel_protocol", "workload_type", "status", "network_mode"),
    ):
        setattr(wire, name, getattr(workload, name))
    if workload.trust_domain != _DEFAULT_TRUST_DOMAIN:
        wire.trust_domain = workload.trust_domain
    wire.addresses.extend(ip.packed for ip in workload.addresses)
    wire.authorization_policies.extend(workload.authorization_policies)
    if workload.waypoint is not None:
        _encode_gateway(workload.waypoint, wire.waypoint)
    if workload.network_gateway is not None:
        _encode_gateway(workload.network_gateway, wire.network_gateway)
    for key, ports in workload.services.items():
        _encode_ports(ports, wire.services[key].ports)
    if workload.application_tunnel is not None:
        wire.application_tunnel.SetInParent()
        wire.application_tunnel.protocol = workload.application_tunnel.protocol
        wire.application_tunnel.port = workload.application_tunnel.port
    if workload.locality != _NO_LOCALITY:
        for name in ("region", "zone", "subzone"):
            setattr(wire.locality, name, getattr(workload.locality, name))
    if workload.capacity != 1:
        wire.capacity.SetInParent()
        wire.capacity.value = workload.capacity


def encode_service(service: Service, wire: Any) -> None:
    """Fill the (empty) istio.workload.Service `wire`."""
    for name in ("name", "namespace", "hostname", "ip_families", "canonical", "visibility"):
        setattr(wire, name, getattr(service, name))
    for vip in service.addresses:
        _encode_network_address(vip, wire.addresses.add())
    _encode_ports(service.ports, wire.ports)
    wire.subject_alt_names.extend(service.subject_alt_names)
    if service.waypoint is not None:
        _encode_gateway(service.waypoint, wire.waypoint)
    if service.load_balancing != _DEFAULT_BALANCING:
        wire.load_balancing.mode = service.load_balancing.mode
        wire.load_balancing.routing_preference.extend(service.load_balancing.routing_preference)
        wire.load_balancing.health_policy = service.load_balancing.health_policy
    for weighted in service.weighted_waypoints:
        item = wire.weighted_waypoints.add(weight=weighted.weight)
        _encode_gateway(weighted.destination, item.destination)


def _encode_ports(ports: tuple[Port, ...], wire: Any) -> None:
    for port in ports:
        wire.add(service_port=port.service_port, target_port=port.target_port, app_protocol=port.app_protocol)


def _encode_network_address(address: NetworkAddress, wire: Any) -> None:
    wire.network = address.network
    wire.address = address.ip.packed
    if address.prefix_length is not None:
        wire.length = address.prefix_length


def _encode_gateway(gateway: GatewayAddress, wire: Any) -> None:
    if isinstance(gateway.destination, NetworkAddress):
        _encode_network_address(gateway.destination, wire.address)
    else:
        wire.hostname.namespace = gateway.destination.namespace
        wire.hostname.hostname = gateway.destination.hostname
    wire.hbone_mtls_port = gateway.hbone_port
