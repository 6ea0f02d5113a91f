"""Service -> the Service of the mesh, and the ports a pod serves behind it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ambient.kube.objects import Pod, ServicePort
from ambient.kube.objects import Service as KubeService
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


def derive_service(
    service: KubeService, namespace_annotations: Mapping[str, str], network: str, domain: str
) -> Service | None:
    """None while the service waits for its cluster address (it would look headless)."""
    if service.type == "ExternalName" or not (service.headless or service.cluster_ips):
        return None
    return Service(
        name=service.name,
        namespace=service.namespace,
        hostname=f"{service.name}.{service.namespace}.svc.{domain}",
        addresses=tuple(NetworkAddress(network, ip) for ip in service.cluster_ips),
        ports=tuple(
            Port(port.port, port.target if isinstance(port.target, int) else 0, app_protocol(port))
            for port in service.ports
        ),
        load_balancing=_load_balancing(service, namespace_annotations),
        ip_families=_families(service.ip_families),
        canonical=True,
    )


def endpoint_ports(service: KubeService, pod: Pod) -> tuple[Port, ...]:
    """The service's ports as this pod serves them; a named port the pod does not have is left out."""
    found = []
    for port in service.ports:
        target = port.target if isinstance(port.target, int) else pod.named_port(port.target, port.protocol)
        if target is not None:
            found.append(Port(port.port, target))
    return tuple(found)


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
    wanted = (
        service.traffic_distribution
        or service.annotations.get(DISTRIBUTION, "")
        or namespace_annotations.get(DISTRIBUTION, "")
    )
    if wanted in _PREFERENCES:
        return LoadBalancing(LoadBalancingMode.FAILOVER, _PREFERENCES[wanted], health)
    return LoadBalancing(health_policy=health)
