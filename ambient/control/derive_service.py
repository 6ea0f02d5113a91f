"""Service -> the Service of the mesh, and the ports that an endpoint serves behind it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ambient.control.derive_waypoint import Binding
from ambient.control.derive_world import GLOBAL, World
from ambient.kube.networking import Endpoint, ServiceEntry
from ambient.kube.objects import Pod, ServicePort
from ambient.kube.objects import Service as KubeService
from ambient.model.identity import Identity
from ambient.model.workload import (
    AppProtocol,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    LoadBalancingMode,
    NetworkAddress,
    Port,
    Scope,
    Service,
)

DISTRIBUTION: Final = "networking.istio.io/traffic-distribution"

_PROTOCOLS: Final[Mapping[str, AppProtocol]] = MappingProxyType(
    {
        "http": AppProtocol.HTTP11,
        "http_proxy": AppProtocol.HTTP11,
        "kubernetes.io/ws": AppProtocol.HTTP11,
        "http2": AppProtocol.HTTP2,
        "kubernetes.io/h2c": AppProtocol.HTTP2,
        "grpc": AppProtocol.GRPC,
        "grpc-web": AppProtocol.GRPC,
        "tcp": AppProtocol.TCP,
        "tls": AppProtocol.TLS,
        "https": AppProtocol.TLS,
        "kubernetes.io/wss": AppProtocol.TLS,
    }
)
_SERVER_FIRST: Final = frozenset({25, 53, 3306, 27017})
"""Well-known ports where the protocol is taken to be TCP when nothing else says so."""
_CLOSE: Final = (Scope.NETWORK, Scope.REGION, Scope.ZONE)
_PREFERENCES: Final[Mapping[str, tuple[Scope, ...]]] = MappingProxyType(
    {
        "PreferClose": _CLOSE,
        "PreferSameZone": _CLOSE,
        "PreferSameNode": (*_CLOSE, Scope.SUBZONE, Scope.NODE),
    }
)
_UNBOUND: Final = Binding()


def derive_service(
    service: KubeService,
    namespace_annotations: Mapping[str, str],
    network: str,
    domain: str,
    binding: Binding = _UNBOUND,
    remote: tuple[str, ...] = (),
) -> Service | None:
    """None while the service waits for its cluster address (it would look headless), and for mere names of others.

    `remote`: identities that its endpoints on other networks have.
    """
    if service.type == "ExternalName" or not (service.headless or service.cluster_ips):
        return None
    return Service(
        name=service.name,
        namespace=service.namespace,
        hostname=hostname_of(service, domain),
        addresses=tuple(NetworkAddress(network, ip) for ip in service.cluster_ips),
        ports=tuple(
            Port(port.port, port.target if isinstance(port.target, int) else 0, app_protocol(port))
            for port in service.ports
        ),
        subject_alt_names=remote,
        waypoint=binding.address,
        weighted_waypoints=binding.weighted,
        load_balancing=_load_balancing(service, namespace_annotations),
        ip_families=_families(service.ip_families),
        canonical=True,
    )


def hostname_of(service: KubeService, domain: str) -> str:
    """The name a Service has in the cluster's DNS."""
    return f"{service.name}.{service.namespace}.svc.{domain}"


def endpoint_ports(service: KubeService, pod: Pod) -> tuple[Port, ...]:
    """The service's ports as this pod serves them; a named port the pod does not have is left out."""
    found = []
    for port in service.ports:
        target = port.target if isinstance(port.target, int) else pod.named_port(port.target, port.protocol)
        if target is not None:
            found.append(Port(port.port, target))
    return tuple(found)


def outside_ports(service: KubeService, endpoint: Endpoint) -> tuple[Port, ...]:
    """As `endpoint_ports`, for an endpoint that is no pod: named targets are found among its own ports."""
    found = []
    for port in service.ports:
        target = port.target if isinstance(port.target, int) else endpoint.ports.get(port.target)
        if target is not None:
            found.append(Port(port.port, target))
    return tuple(found)


def entry_endpoint_ports(entry: ServiceEntry, own: Mapping[str, int]) -> tuple[Port, ...]:
    """A ServiceEntry's ports; `own` are those that the endpoint has by the port's name in the place of its target."""
    return tuple(Port(port.number, own.get(port.name) or port.target or port.number) for port in entry.ports)


def remote_identities(world: World, owner: KubeService | ServiceEntry, selector: Mapping[str, str]) -> tuple[str, ...]:
    """SPIFFE ids of the WorkloadEntries on other networks behind a service that is global: with those it answers
    through a gateway, and what is not global does not cross networks."""
    if owner.labels.get(GLOBAL) != "true":
        return ()
    domain = world.settings.trust_domain
    found = {
        str(Identity(domain, one.namespace, one.endpoint.service_account or "default"))
        for one in world.selected_entries(owner, selector)
        if one.endpoint.network not in ("", world.network)
    }
    return tuple(sorted(found))


def app_protocol(port: ServicePort) -> AppProtocol:
    """From appProtocol, else from the part of the name before "-", else from the number."""
    if port.protocol != "TCP":
        return AppProtocol.UNKNOWN
    if port.app_protocol:
        return _PROTOCOLS.get(port.app_protocol.lower(), AppProtocol.UNKNOWN)
    name = port.name.lower()
    for candidate in ("grpc-web", name.partition("-")[0]):
        if (name == candidate or name.startswith(f"{candidate}-")) and candidate in _PROTOCOLS:
            return _PROTOCOLS[candidate]
    return AppProtocol.TCP if port.port in _SERVER_FIRST else AppProtocol.UNKNOWN


def entry_protocol(written: str) -> AppProtocol:
    """Of a ServiceEntry's port: what it says and nothing else."""
    return _PROTOCOLS.get(written.lower(), AppProtocol.UNKNOWN)


def _families(families: tuple[str, ...]) -> IpFamilies:
    if len(families) == 2:
        return IpFamilies.DUAL
    if not families:
        return IpFamilies.AUTOMATIC
    return IpFamilies.IPV4_ONLY if families[0] == "IPv4" else IpFamilies.IPV6_ONLY


def _load_balancing(service: KubeService, namespace_annotations: Mapping[str, str]) -> LoadBalancing:
    health = HealthPolicy.ALLOW_ALL if service.publish_not_ready else HealthPolicy.ONLY_HEALTHY
    if service.internal_traffic_policy == "Local":
        return LoadBalancing(LoadBalancingMode.STRICT, (Scope.NODE,), health)
    return balancing(service.traffic_distribution, service.annotations, namespace_annotations, health)


def balancing(
    distribution: str,
    annotations: Mapping[str, str],
    namespace_annotations: Mapping[str, str],
    health: HealthPolicy = HealthPolicy.ONLY_HEALTHY,
) -> LoadBalancing:
    """By what the object says, else its annotation, else its namespace's."""
    wanted = distribution or annotations.get(DISTRIBUTION, "") or namespace_annotations.get(DISTRIBUTION, "")
    if wanted in _PREFERENCES:
        return LoadBalancing(LoadBalancingMode.FAILOVER, _PREFERENCES[wanted], health)
    return LoadBalancing(health_policy=health)
