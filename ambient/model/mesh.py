"""Everything discovery has told us, indexed for the questions that `route`, `decide` and DNS ask.

`Mesh.apply` is atomic: it is the only way to change anything, it takes whole values only and cannot fail half way.
Order does not matter: endpoints may come before their service, policies after the workloads that name them.
Not for use from several threads; readers see the state between two calls of `apply`.

Rankings: a pod beats other workloads of one address, then HBONE; of services the visible one in the client's
namespace, then the canonical one, then the first by key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ambient.model.address import IpAddress, parse_ip
from ambient.model.index import BlockIndex, NameIndex, NetworkIndex
from ambient.model.policy import Authorization, PolicyScope
from ambient.model.workload import Health, NetworkMode, Port, Service, TunnelProtocol, Visibility, Workload

Kind = Literal["workload", "service", "authorization"]
Value = Workload | Service | Authorization


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """A workload behind a service and its own ports there (none: only the service's mapping counts)."""

    workload: Workload
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """What one `apply` touched: workload uids, service keys, policy keys; `names` in the form of `Routed.depends`.

    False when nothing differs.
    """

    workloads: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    policies: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.workloads or self.services or self.policies)


@dataclass(frozen=True, slots=True)
class PolicySetInput:
    """What `decide` needs for one workload: the policies that select it, and the keys it names that are not here."""

    policies: tuple[Authorization, ...] = ()
    missing: tuple[str, ...] = ()


def workload_name(uid: str) -> str:
    """Name of a workload in `Changes.names` and `Routed.depends`; the next four likewise."""
    return f"workload:{uid}"


def address_name(network: str, ip: IpAddress) -> str:
    return f"address:{network}/{ip}"


def blocks_name(network: str) -> str:
    """All CIDR addresses of services of a network: touched when any of them changes."""
    return f"blocks:{network}"


def service_name(key: str) -> str:
    return f"service:{key}"


def hostname_name(hostname: str) -> str:
    return f"hostname:{hostname.lower()}"


class Mesh:
    """The indexed view. Lookups return None or () when nothing fits; they never raise."""

    def __init__(self) -> None:
        self._workloads: dict[str, Workload] = {}
        self._services: dict[str, Service] = {}
        self._policies: dict[str, Authorization] = {}
        self._uids_by_address: NetworkIndex = NetworkIndex()
        self._uids_by_host_address: NetworkIndex = NetworkIndex()
        self._uids_by_node: NameIndex[str] = NameIndex()
        self._uids_by_hostname: NameIndex[str] = NameIndex()
        self._uids_by_service: NameIndex[str] = NameIndex()
        self._keys_by_address: NetworkIndex = NetworkIndex()
        self._keys_by_block = BlockIndex()
        self._keys_by_hostname: NameIndex[str] = NameIndex()
        self._policies_by_namespace: NameIndex[str] = NameIndex()
        self._uses_of_waypoint: Counter[str] = Counter()

    # --- change

    def apply(self, put: Iterable[Value] = (), gone: Iterable[tuple[Kind, str]] = ()) -> Changes:
        """Remove `gone`, insert or replace `put` (which wins); equal values do not count as changes."""
        arriving = {(_kind(value), _name(value)): value for value in put}
        leaving = [target for target in gone if target not in arriving]
        touched: dict[Kind, set[str]] = {"workload": set(), "service": set(), "authorization": set()}
        names: set[str] = set()
        for kind, name in leaving:
            old = self._get(kind, name)
            if old is not None:
                self._remove(old)
                touched[kind].add(name)
                names |= _names(old)
        for (kind, name), value in arriving.items():
            old = self._get(kind, name)
            if old == value:
                continue
            if old is not None:
                self._remove(old)
                names |= _names(old)
            self._insert(value)
            touched[kind].add(name)
            names |= _names(value)
        return Changes(
            frozenset(touched["workload"]),
            frozenset(touched["service"]),
            frozenset(touched["authorization"]),
            frozenset(names),
        )

    def _get(self, kind: Kind, name: str) -> Value | None:
        if kind == "workload":
            return self._workloads.get(name)
        return self._services.get(name) if kind == "service" else self._policies.get(name)

    def _insert(self, value: Value) -> None:
        match value:
            case Workload():
                self._workloads[value.uid] = value
                for address in value.addresses:
                    self._by_address(value).add(value.network, address, value.uid)
                for key in value.services:
                    self._uids_by_service.add(key, value.uid)
                self._uids_by_node.add(value.node, value.uid)
                if value.hostname:
                    self._uids_by_hostname.add(value.hostname.lower(), value.uid)
                if value.waypoint is not None:
                    self._uses_of_waypoint[str(value.waypoint.destination)] += 1
            case Service():
                self._services[value.key] = value
                for vip in value.addresses:
                    if vip.prefix_length is None:
                        self._keys_by_address.add(vip.network, vip.ip, value.key)
                    else:
                        self._keys_by_block.add(vip.network, vip.ip, vip.prefix_length, value.key)
                self._keys_by_hostname.add(value.hostname.lower(), value.key)
                self._uses_of_waypoint.update(_waypoint_names(value))
            case Authorization():
                self._policies[value.key] = value
                if value.scope is not PolicyScope.WORKLOAD_SELECTOR:
                    self._policies_by_namespace.add(_policed_namespace(value), value.key)

    def _remove(self, value: Value) -> None:
        match value:
            case Workload():
                del self._workloads[value.uid]
                for address in value.addresses:
                    self._by_address(value).discard(value.network, address, value.uid)
                for key in value.services:
                    self._uids_by_service.discard(key, value.uid)
                self._uids_by_node.discard(value.node, value.uid)
                self._uids_by_hostname.discard(value.hostname.lower(), value.uid)
                if value.waypoint is not None:
                    self._release_waypoints([str(value.waypoint.destination)])
            case Service():
                del self._services[value.key]
                for vip in value.addresses:
                    if vip.prefix_length is None:
                        self._keys_by_address.discard(vip.network, vip.ip, value.key)
                    else:
                        self._keys_by_block.discard(vip.network, vip.ip, vip.prefix_length, value.key)
                self._keys_by_hostname.discard(value.hostname.lower(), value.key)
                self._release_waypoints(_waypoint_names(value))
            case Authorization():
                del self._policies[value.key]
                self._policies_by_namespace.discard(_policed_namespace(value), value.key)

    def _by_address(self, workload: Workload) -> NetworkIndex:
        host = workload.network_mode is NetworkMode.HOST_NETWORK
        return self._uids_by_host_address if host else self._uids_by_address

    def _release_waypoints(self, names: Iterable[str]) -> None:
        for name in names:
            self._uses_of_waypoint[name] -= 1
            if not self._uses_of_waypoint[name]:
                del self._uses_of_waypoint[name]

    # --- lookups

    def workloads(self) -> Iterator[Workload]:
        return iter(self._workloads.values())

    def services(self) -> Iterator[Service]:
        return iter(self._services.values())

    def policies(self) -> Iterator[Authorization]:
        return iter(self._policies.values())

    def counts(self) -> tuple[int, int, int]:
        """How many workloads, services and policies there are."""
        return len(self._workloads), len(self._services), len(self._policies)

    def knows(self, name: str) -> bool:
        """There is something of that name (in the form of `Changes.names`). True for the names of hosts and blocks:
        nobody can ask for them by themselves."""
        kind, _, rest = name.partition(":")
        if kind == "address":
            network, _, ip = rest.rpartition("/")
            address = parse_ip(ip)
            indexes = (self._uids_by_address, self._keys_by_address, self._uids_by_host_address)
            return any(index.names(network, address) for index in indexes)
        return rest in self._workloads if kind == "workload" else kind != "service" or rest in self._services

    def workload(self, uid: str) -> Workload | None:
        return self._workloads.get(uid)

    def service(self, key: str) -> Service | None:
        return self._services.get(key)

    def policy(self, key: str) -> Authorization | None:
        return self._policies.get(key)

    def workload_by_address(self, network: str, ip: IpAddress) -> Workload | None:
        """The best-ranked workload with this address; host-network workloads share the node's and have none."""
        return self._best(self._uids_by_address.names(network, ip))

    def workloads_at(self, network: str, ip: IpAddress) -> Iterator[Workload]:
        """All with this address, but for host-network ones."""
        return (self._workloads[uid] for uid in self._uids_by_address.names(network, ip))

    def is_host_address(self, network: str, ip: IpAddress) -> bool:
        """Workloads that share their node's network have this address."""
        return bool(self._uids_by_host_address.names(network, ip))

    def workload_by_hostname(self, hostname: str) -> Workload | None:
        return self._best(self._uids_by_hostname.names(hostname.lower()))

    def is_waypoint(self, destination: str) -> bool:
        """Some workload or service has a waypoint of exactly this destination (as text)."""
        return destination in self._uses_of_waypoint

    def workloads_on(self, node: str) -> tuple[Workload, ...]:
        return tuple(self._workloads[uid] for uid in sorted(self._uids_by_node.names(node)))

    def local_workload(self, namespace: str, name: str, node: str = "") -> Workload | None:
        """The workload a pod of this name is known as; with `node` only one that runs there.

        Looks at every workload of the node, without `node` at every one: whoever knows the uid asks for that.
        """
        uids = self._uids_by_node.names(node) if node else self._workloads
        found = (self._workloads[uid] for uid in uids)
        return self._best(one.uid for one in found if one.name == name and one.namespace == namespace)

    def endpoints(self, service_key: str) -> tuple[ServiceEndpoint, ...]:
        """Every workload that says it belongs to the service, whatever its health, ordered by uid."""
        uids = sorted(self._uids_by_service.names(service_key))
        found = (self._workloads[uid] for uid in uids)
        return tuple(ServiceEndpoint(workload, tuple(workload.services[service_key])) for workload in found)

    def has_port(self, service: Service, port: int) -> bool:
        """The service or one of its endpoints says what this port is; cheaper than to look at each endpoint whole."""
        if any(entry.service_port == port for entry in service.ports):
            return True
        own = (self._workloads[uid].services[service.key] for uid in self._uids_by_service.names(service.key))
        return any(entry.service_port == port for ports in own for entry in ports)

    def service_by_address(self, network: str, ip: IpAddress, client_namespace: str) -> Service | None:
        """By exact address, else by the blocks that hold it."""
        exact = self.best_service(self._keys_by_address.names(network, ip), client_namespace)
        if exact is not None:
            return exact
        found = [
            (service.namespace != client_namespace, -length, not service.canonical, key)
            for length, key in self._keys_by_block.matching(network, ip)
            if _visible(service := self._services[key], client_namespace)
        ]
        return self._services[min(found)[-1]] if found else None

    def services_by_hostname(self, hostname: str) -> tuple[Service, ...]:
        return tuple(self._services[key] for key in self._keys_by_hostname.names(hostname.lower()))

    def service_by_hostname(self, hostname: str, client_namespace: str, preferred: str = "") -> Service | None:
        """The best of the services with this hostname; `preferred` is a namespace that wins a tie (DNS)."""
        return self.best_service(self._keys_by_hostname.names(hostname.lower()), client_namespace, preferred)

    def best_service(self, keys: Iterable[str], client_namespace: str, preferred: str = "") -> Service | None:
        found = [
            (service.namespace != client_namespace, not service.canonical, service.namespace != preferred, key)
            for key in keys
            if _visible(service := self._services[key], client_namespace)
        ]
        return self._services[min(found)[-1]] if found else None

    def policies_of(self, workload: Workload) -> PolicySetInput:
        """Policies of the workload's namespace, of the mesh, and those it names; each once, ordered by key."""
        keys = {
            *self._policies_by_namespace.names(workload.namespace),
            *self._policies_by_namespace.names(""),
            *workload.authorization_policies,
        }
        return PolicySetInput(
            tuple(self._policies[key] for key in sorted(keys) if key in self._policies),
            tuple(key for key in sorted(keys) if key not in self._policies),
        )

    def _best(self, uids: Iterable[str]) -> Workload | None:
        found = [self._workloads[uid] for uid in uids]
        return min(found, key=_rank) if found else None


def _rank(workload: Workload) -> tuple[bool, bool, bool, str]:
    return (
        "//Pod/" not in workload.uid,
        workload.tunnel_protocol is not TunnelProtocol.HBONE,
        workload.status is not Health.HEALTHY,
        workload.uid,
    )


def _visible(service: Service, client_namespace: str) -> bool:
    return service.visibility is Visibility.PUBLIC or service.namespace == client_namespace


def _waypoint_names(service: Service) -> list[str]:
    names = [str(entry.destination.destination) for entry in service.weighted_waypoints]
    return names + ([str(service.waypoint.destination)] if service.waypoint is not None else [])


def _policed_namespace(policy: Authorization) -> str:
    return "" if policy.scope is PolicyScope.GLOBAL else policy.namespace


def _kind(value: Value) -> Kind:
    if isinstance(value, Workload):
        return "workload"
    return "service" if isinstance(value, Service) else "authorization"


def _name(value: Value) -> str:
    return value.uid if isinstance(value, Workload) else value.key


def _names(value: Value) -> set[str]:
    match value:
        case Workload():
            names = {workload_name(value.uid)}
            names.update(address_name(value.network, address) for address in value.addresses)
            names.update(service_name(key) for key in value.services)
            if value.hostname:
                names.add(hostname_name(value.hostname))
            return names
        case Service():
            names = {service_name(value.key), hostname_name(value.hostname)}
            for vip in value.addresses:
                exact = vip.prefix_length is None
                names.add(address_name(vip.network, vip.ip) if exact else blocks_name(vip.network))
            return names
        case Authorization():
            return set()
