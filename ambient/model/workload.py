"""Workloads and services as istio.workload describes them; the values every other part speaks in.

Defaults are the receiver's defaults of the wire format (trust domain, service account, cluster, capacity).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

from ambient.model.address import HBONE_PORT, IpAddress
from ambient.model.identity import Identity


class TunnelProtocol(IntEnum):
    NONE = 0
    HBONE = 1


class NetworkMode(IntEnum):
    STANDARD = 0
    HOST_NETWORK = 1


class WorkloadType(IntEnum):
    DEPLOYMENT = 0
    CRONJOB = 1
    POD = 2
    JOB = 3


class Health(IntEnum):
    HEALTHY = 0
    UNHEALTHY = 1


class AppProtocol(IntEnum):
    UNKNOWN = 0
    HTTP11 = 1
    HTTP2 = 2
    GRPC = 3
    TCP = 4
    TLS = 5


class IpFamilies(IntEnum):
    AUTOMATIC = 0
    IPV4_ONLY = 1
    IPV6_ONLY = 2
    DUAL = 3


class Visibility(IntEnum):
    PUBLIC = 0
    NAMESPACE = 1


class Scope(IntEnum):
    """What a load-balancing preference compares."""

    REGION = 1
    ZONE = 2
    SUBZONE = 3
    NODE = 4
    CLUSTER = 5
    NETWORK = 6


class LoadBalancingMode(IntEnum):
    STANDARD = 0
    STRICT = 1
    FAILOVER = 2
    PASSTHROUGH = 3


class HealthPolicy(IntEnum):
    ONLY_HEALTHY = 0
    ALLOW_ALL = 1


class TunnelPreamble(IntEnum):
    NONE = 0
    PROXY = 1


@dataclass(frozen=True, slots=True)
class NetworkAddress:
    """An address on a named network ("" = the default one). `prefix_length` only for CIDR VIPs."""

    network: str
    ip: IpAddress
    prefix_length: int | None = None

    def __str__(self) -> str:
        suffix = "" if self.prefix_length is None else f"/{self.prefix_length}"
        return f"{self.network}/{self.ip}{suffix}"


@dataclass(frozen=True, slots=True)
class NamespacedHostname:
    namespace: str
    hostname: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.hostname}"


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    destination: NamespacedHostname | NetworkAddress
    hbone_port: int = HBONE_PORT


@dataclass(frozen=True, slots=True)
class WeightedWaypoint:
    destination: GatewayAddress
    weight: int


@dataclass(frozen=True, slots=True)
class Port:
    """`target_port` 0 means "named port, look at the endpoint"."""

    service_port: int
    target_port: int
    app_protocol: AppProtocol = AppProtocol.UNKNOWN


@dataclass(frozen=True, slots=True)
class Locality:
    region: str = ""
    zone: str = ""
    subzone: str = ""


@dataclass(frozen=True, slots=True)
class LoadBalancing:
    mode: LoadBalancingMode = LoadBalancingMode.STANDARD
    routing_preference: tuple[Scope, ...] = ()
    health_policy: HealthPolicy = HealthPolicy.ONLY_HEALTHY


@dataclass(frozen=True, slots=True)
class ApplicationTunnel:
    protocol: TunnelPreamble = TunnelPreamble.NONE
    port: int = 0


_NO_SERVICES: Mapping[str, tuple[Port, ...]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One pod, VM or endpoint. `uid` is the xDS name; `services` maps "namespace/hostname" to its ports.

    `refused`: why what discovery says of it was not understood. Such a value stands in for one that nobody has; its
    addresses are known so that nothing is sent to them, the rest means nothing.
    """

    uid: str
    name: str
    namespace: str
    addresses: tuple[IpAddress, ...] = ()
    network: str = ""
    tunnel_protocol: TunnelProtocol = TunnelProtocol.NONE
    trust_domain: str = "cluster.local"
    service_account: str = "default"
    waypoint: GatewayAddress | None = None
    node: str = ""
    canonical_name: str = ""
    canonical_revision: str = ""
    workload_type: WorkloadType = WorkloadType.POD
    workload_name: str = ""
    native_tunnel: bool = False
    authorization_policies: tuple[str, ...] = ()
    status: Health = Health.HEALTHY
    cluster_id: str = "Kubernetes"
    network_gateway: GatewayAddress | None = None
    hostname: str = ""
    services: Mapping[str, tuple[Port, ...]] = field(default_factory=lambda: _NO_SERVICES)
    application_tunnel: ApplicationTunnel | None = None
    locality: Locality = Locality()
    network_mode: NetworkMode = NetworkMode.STANDARD
    capacity: int = 1
    refused: str = ""

    @property
    def identity(self) -> Identity:
        return Identity(self.trust_domain, self.namespace, self.service_account)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A virtual destination. Its xDS name is `key`. `refused` as with Workload."""

    name: str
    namespace: str
    hostname: str
    addresses: tuple[NetworkAddress, ...] = ()
    ports: tuple[Port, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    waypoint: GatewayAddress | None = None
    load_balancing: LoadBalancing = LoadBalancing()
    ip_families: IpFamilies = IpFamilies.AUTOMATIC
    canonical: bool = False
    weighted_waypoints: tuple[WeightedWaypoint, ...] = ()
    visibility: Visibility = Visibility.PUBLIC
    refused: str = ""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.hostname}"
