"""Records of what lies beside Pods and Services: endpoint slices, networking.istio.io and the Gateway API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from ambient.kube.jwt_rules import JwtRule
from ambient.kube.policies import TargetRef
from ambient.kube.records import NOTHING, Record
from ambient.kube.traffic_values import TrafficPolicy
from ambient.model.address import IpAddress, IpNetwork

SERVICE_NAME = "kubernetes.io/service-name"
"""Label of an EndpointSlice: the service it is for."""
_NO_PORTS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """`ready` is True where the condition is absent, as Kubernetes wants it read. `target`: (kind, namespace, name)."""

    addresses: tuple[str, ...]
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    target: tuple[str, str, str] | None = None
    node: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class SlicePort:
    """`name` is that of the service's port; `port` is where the endpoints listen, None: any."""

    name: str = ""
    port: int | None = None
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSlice(Record):
    """`address_type` is IPv4, IPv6 or FQDN."""

    kind: ClassVar[str] = "EndpointSlice"
    address_type: str = "IPv4"
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()

    @property
    def service(self) -> str:
        """Name of the service it is for, "" when it is for none."""
        return self.labels.get(SERVICE_NAME, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An address outside of pods: of a ServiceEntry, or what a WorkloadEntry or a group's template describes.

    `address`: IP address, host name, "unix:///..." or "". `locality` is "region/zone/subzone" as written; `weight` 0 =
    not given.
    """

    address: str = ""
    ports: Mapping[str, int] = field(default_factory=lambda: _NO_PORTS)
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    network: str = ""
    locality: str = ""
    weight: int = 0
    service_account: str = ""


@dataclass(frozen=True, slots=True)
class EntryPort:
    """`target` 0 = the same number."""

    number: int
    name: str
    protocol: str = ""
    target: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEntry(Record):
    """`allocated`: addresses that status gives to its hosts, as (host, address), in order."""

    kind: ClassVar[str] = "ServiceEntry"
    hosts: tuple[str, ...] = ()
    addresses: tuple[IpNetwork, ...] = ()
    ports: tuple[EntryPort, ...] = ()
    location: str = "MESH_EXTERNAL"
    resolution: str = "NONE"
    endpoints: tuple[Endpoint, ...] = ()
    selector: Mapping[str, str] | None = None
    export_to: tuple[str, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    allocated: tuple[tuple[str, IpAddress], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadEntry(Record):
    kind: ClassVar[str] = "WorkloadEntry"
    endpoint: Endpoint = Endpoint()

    @property
    def merged_labels(self) -> Mapping[str, str]:
        """Those of spec with those of the object itself over them: what selectors look at."""
        return {**self.endpoint.labels, **self.labels} if self.endpoint.labels else self.labels


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadGroup(Record):
    """What the WorkloadEntries of workloads that join are made from. `probe` is the spec's, {} when it has none."""

    kind: ClassVar[str] = "WorkloadGroup"
    entry_labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    entry_annotations: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    template: Endpoint = Endpoint()
    probe: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Subset:
    """Of a host's endpoints those with all of `labels`."""

    name: str
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    traffic: TrafficPolicy = TrafficPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationRule(Record):
    """Layer 7's; a ztunnel takes nothing from it. `host` "*": every host; it may begin with "*."."""

    kind: ClassVar[str] = "DestinationRule"
    host: str = ""
    export_to: tuple[str, ...] = ()
    selector: Mapping[str, str] | None = None
    traffic: TrafficPolicy = TrafficPolicy()
    subsets: tuple[Subset, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAuthentication(Record):
    """Layer 7's: a waypoint's affair; a ztunnel sees no tokens. `rules` are its jwtRules."""

    kind: ClassVar[str] = "RequestAuthentication"
    selector: Mapping[str, str] | None = None
    target_refs: tuple[TargetRef, ...] = ()
    rules: tuple[JwtRule, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """`operator` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        return (labels.get(self.key) in self.values) is (self.operator == "In")


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Kubernetes' label selector: everything in it must hold; an empty one fits everything."""

    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    requirements: tuple[LabelRequirement, ...] = ()

    def fits(self, labels: Mapping[str, str]) -> bool:
        return self.labels.items() <= labels.items() and all(one.holds(labels) for one in self.requirements)


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """What a Gateway refers to. `namespace` "": its own."""

    group: str
    kind: str
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class ClientCheck:
    """Who may connect over TLS: whom one of the authorities in `authorities` vouches for. `insecure`: others, too."""

    authorities: tuple[ObjectRef, ...]
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Listener:
    """`allowed`: whose routes may attach: Same, All, None or Selector (then `namespaces`). `tls_mode` "": no TLS.

    `certificates`: its own. `clients`: whose certificates it asks for, None: nobody's. `kinds`: (group, kind) of routes
    that may attach, None: all that fit the protocol.
    """

    name: str
    port: int
    protocol: str
    hostname: str = ""
    tls_mode: str = ""
    allowed: str = "Same"
    namespaces: LabelSelector = LabelSelector()
    certificates: tuple[ObjectRef, ...] = ()
    clients: ClientCheck | None = None
    kinds: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True, slots=True)
class TypedAddress:
    """Of a Gateway: `type` is IPAddress, Hostname or somebody's own."""

    type: str
    value: str


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """What the owner of a Gateway wants on all that is made for it. `parameters`: "Kind/name", or
    "Kind.group/name", "" when none."""

    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    annotations: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    parameters: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway(Record):
    """Gateway API's, not networking.istio.io's. `assigned` are status.addresses: with them it is ready. `own`: the
    certificate that its proxies prove themselves with to applications."""

    kind: ClassVar[str] = "Gateway"
    class_name: str = ""
    listeners: tuple[Listener, ...] = ()
    wanted: tuple[TypedAddress, ...] = ()
    assigned: tuple[TypedAddress, ...] = ()
    infrastructure: Infrastructure = Infrastructure()
    own: ObjectRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayClass(Record):
    kind: ClassVar[str] = "GatewayClass"
    controller: str = ""
