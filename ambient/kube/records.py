"""Kubernetes objects as typed values: what the rest of the project reads instead of JSON.

A record is built only by `ambient.kube.objects.parse_object`, so whoever holds one holds a valid object. `raw` is
the JSON it came from (never change it in place; derive a new mapping and parse that).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from ambient.errors import InvalidInput
from ambient.kube.policies import PeerMtls, PolicyRule, TargetRef
from ambient.model.address import IpAddress

NOTHING: Mapping[str, str] = MappingProxyType({})


def record_key(kind: str, namespace: str, name: str) -> str:
    """ "Kind/namespace/name"; "_" stands for the namespace of cluster-wide kinds."""
    return f"{kind}/{namespace or '_'}/{name}"


@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of status.conditions. `status` is "True", "False" or "Unknown"; `generation`: of the object that it was
    said of, as far as that can be read, 0 when it cannot."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    generation: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What all objects have. `created` is metadata.creationTimestamp as text ("" when the object was never stored)."""

    kind: ClassVar[str] = ""
    name: str
    namespace: str = ""
    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    annotations: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    generation: int = 0
    created: str = ""
    deleting: bool = False
    conditions: tuple[Condition, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), compare=False, repr=False)

    @property
    def key(self) -> str:
        return record_key(self.kind, self.namespace, self.name)

    def condition(self, type_: str) -> Condition | None:
        return next((c for c in self.conditions if c.type == type_), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace(Record):
    kind: ClassVar[str] = "Namespace"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount(Record):
    kind: ClassVar[str] = "ServiceAccount"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMap(Record):
    """Texts by name, for the lab's pods to mount."""

    kind: ClassVar[str] = "ConfigMap"
    data: Mapping[str, str] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Record):
    """A machine. Only its labels (locality), addresses and pod ranges interest us."""

    kind: ClassVar[str] = "Node"
    addresses: tuple[IpAddress, ...] = ()
    pod_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerPort:
    port: int
    name: str = ""
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class EnvVar:
    """`field_path` names a field of the pod (downward API) that gives the value; then `value` is ""."""

    name: str
    value: str = ""
    field_path: str = ""


@dataclass(frozen=True, slots=True)
class HttpGet:
    """`host` "" means the pod's own address. `headers` in the order given."""

    port: int
    path: str = "/"
    scheme: str = "HTTP"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TcpSocket:
    port: int
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Named ports are resolved already. Times are seconds."""

    action: HttpGet | TcpSocket
    initial_delay_s: int = 0
    period_s: int = 10
    timeout_s: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    readiness: Probe | None = None
    liveness: Probe | None = None
    startup: Probe | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod(Record):
    """`ips` are status.podIPs; `wanted_ips` the addresses asked for by annotation `ambient.mesh/pod-ips` (lab).

    `ready` is what the kubelet reported (False before it reported anything). `owner` is (kind, name) of the
    controller that made the pod, or None. `subdomain`/`hostname` name it under a headless service.
    """

    kind: ClassVar[str] = "Pod"
    node_name: str = ""
    service_account: str = "default"
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    restart_policy: str = "Always"
    grace_s: int = 30
    containers: tuple[Container, ...] = ()
    wanted_ips: tuple[IpAddress, ...] = ()
    ips: tuple[IpAddress, ...] = ()
    host_ip: IpAddress | None = None
    phase: str = ""
    ready: bool = False
    owner: tuple[str, str] | None = None

    def named_port(self, name: str, protocol: str) -> int | None:
        """The number of a container port, None when no container names it with this protocol."""
        for container in self.containers:
            for port in container.ports:
                if port.name == name and port.protocol == protocol:
                    return port.port
        return None


@dataclass(frozen=True, slots=True)
class ServicePort:
    """`target` is a number or the name of a container port. `node_port` 0 = none."""

    port: int
    target: int | str
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str = ""
    node_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Record):
    """`cluster_ips` is empty for headless services and for those that wait for an address (`headless` tells which).

    `ip_families` holds "IPv4"/"IPv6" in order; `ip_family_policy` "" counts as Kubernetes fills it in: SingleStack,
    RequireDualStack where two families are named.
    """

    kind: ClassVar[str] = "Service"
    type: str = "ClusterIP"
    selector: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    ports: tuple[ServicePort, ...] = ()
    headless: bool = False
    cluster_ips: tuple[IpAddress, ...] = ()
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str = ""
    external_name: str = ""
    publish_not_ready: bool = False
    internal_traffic_policy: str = "Cluster"
    external_traffic_policy: str = "Cluster"
    traffic_distribution: str = ""
    session_affinity: str = "None"
    balanced: tuple[str, ...] = ()
    """Addresses and names that a load balancer has given it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationPolicy(Record):
    """`selector` is None when absent or without labels: the whole namespace (or mesh, in the root namespace)."""

    kind: ClassVar[str] = "AuthorizationPolicy"
    selector: Mapping[str, str] | None = None
    target_refs: tuple[TargetRef, ...] = ()
    action: str = "ALLOW"
    provider: str = ""
    rules: tuple[PolicyRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAuthentication(Record):
    """Modes are UNSET, DISABLE, PERMISSIVE or STRICT."""

    kind: ClassVar[str] = "PeerAuthentication"
    selector: Mapping[str, str] | None = None
    mtls: PeerMtls = PeerMtls()


R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class RefusedObject:
    """A stored object that is invalid now. `stands`: its last good version is still among the records.

    `raw` is whatever could be decoded ({} when not even that); kind, namespace and name come from where it is stored.
    """

    kind: str
    namespace: str
    name: str
    error: InvalidInput
    raw: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    stands: bool = False

    @property
    def key(self) -> str:
        return record_key(self.kind, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class WriterState:
    """How far a status writer is: objects revision it has acted on, count of its own status changes."""

    observed: int
    status: int


@dataclass(frozen=True, slots=True)
class Records:
    """One consistent snapshot of all objects, status merged in. `revision` counts changes of the objects.

    `changed`: keys of all that is new, different or gone (valid or refused) since the snapshot that the same source
    gave before this one; None when it does not know (the first, too).
    """

    revision: int = 0
    by_key: Mapping[str, Record] = field(default_factory=lambda: MappingProxyType({}))
    refused: tuple[RefusedObject, ...] = ()
    writers: Mapping[str, WriterState] = field(default_factory=lambda: MappingProxyType({}))
    changed: frozenset[str] | None = field(default=None, compare=False)

    _index: list[dict[type[Record], dict[str, Record]]] = field(
        default_factory=list, init=False, compare=False, repr=False
    )
    """Once anybody has asked: what there is of each class, by key."""

    def since(self, before: Records) -> Records:
        """This snapshot. Of what `before`, the one that the same source gave before it, knows by kind only what has
        `changed` is looked at again."""
        if self.changed is None or not before._index or self._index:
            return self
        index = dict(before._index[0])
        own: set[type[Record]] = set()
        for key in self.changed:
            for record, held in ((before.by_key.get(key), False), (self.by_key.get(key), True)):
                if record is None:
                    continue
                kind = type(record)
                if kind not in own:
                    own.add(kind)
                    index[kind] = dict(index.get(kind, ()))
                if held:
                    index[kind][key] = record
                else:
                    index[kind].pop(key, None)
        self._index.append(index)
        return self

    def of(self, kind: type[R]) -> list[R]:
        """All records of a kind, ordered by key."""
        if not self._index:
            self._index.append(_index(self.by_key))
        found = [one for held, named in self._index[0].items() if issubclass(held, kind) for one in named.items()]
        return [record for _, record in sorted(found) if isinstance(record, kind)]

    def find(self, kind: type[R], namespace: str, name: str) -> R | None:
        record = self.by_key.get(record_key(kind.kind, namespace, name))
        return record if isinstance(record, kind) else None


def _index(by_key: Mapping[str, Record]) -> dict[type[Record], dict[str, Record]]:
    found: dict[type[Record], dict[str, Record]] = {}
    for key, record in by_key.items():
        found.setdefault(type(record), {})[key] = record
    return found
