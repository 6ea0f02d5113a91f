"""ServiceEntry and hand-made EndpointSlices -> services and workloads outside of pods; their addresses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from types import MappingProxyType
from typing import Final

from ambient.control.derive_endpoints import left_out
from ambient.control.derive_network import gateway_of
from ambient.control.derive_service import (
    balancing,
    derive_service,
    entry_endpoint_ports,
    entry_protocol,
    hostname_of,
    remote_identities,
)
from ambient.control.derive_waypoint import bind
from ambient.control.derive_wild import DYNAMIC, is_dynamic, unserved
from ambient.control.derive_workload import canonical_names, place_of, policies_of
from ambient.control.derive_world import World
from ambient.kube.networking import Endpoint, EndpointSlice, ServiceEntry
from ambient.kube.objects import Condition
from ambient.kube.objects import Service as KubeService
from ambient.model.address import IpAddress, parse_ip
from ambient.model.workload import (
    Health,
    HealthPolicy,
    LoadBalancing,
    LoadBalancingMode,
    NetworkAddress,
    NetworkMode,
    Port,
    Service,
    TunnelProtocol,
    Workload,
    WorkloadType,
)

AUTO_ALLOCATE: Final = "networking.istio.io/enable-autoallocate-ip"
MISSING: Final = "istio.io/WaypointMissing"
_RANGES: Final = (IPv4Network("240.240.0.0/16"), IPv6Network("2001:2::/48"))
_BY_NAME: Final = ("DNS", "DNS_ROUND_ROBIN")


@dataclass(frozen=True, slots=True)
class EntryDerived:
    services: tuple[Service, ...]
    workloads: tuple[Workload, ...]
    conditions: tuple[Condition, ...]


def derive_entry(entry: ServiceEntry, world: World) -> EntryDerived:
    """One service per host that is this entry's, and its own endpoints."""
    binding = bind(world, entry, entry.labels, "service")
    namespace = world.namespace(entry.namespace)
    annotations = namespace.annotations if namespace is not None else {}
    shape = Service(
        name=entry.name,
        namespace=entry.namespace,
        hostname="",
        ports=tuple(
            Port(port.number, port.target or port.number, entry_protocol(port.protocol)) for port in entry.ports
        ),
        subject_alt_names=entry.subject_alt_names,
        waypoint=binding.address,
        weighted_waypoints=binding.weighted,
        load_balancing=_balancing(entry, annotations),
    )
    remote = remote_identities(world, entry, entry.selector or {})
    services = [
        replace(
            shape,
            hostname=host,
            addresses=_addresses(entry, host, world.network),
            canonical=world.owners(host)[0] is entry and not _taken(world, host),
            subject_alt_names=(*shape.subject_alt_names, *(i for i in remote if i not in shape.subject_alt_names)),
        )
        for host in entry.hosts
        if _first_in_namespace(world, entry, host)
    ]
    conditions = binding.conditions
    if entry.resolution == DYNAMIC and binding.address is None:
        why = "names of the moment are looked up by a waypoint, and none is bound"
        conditions += (Condition(MISSING, "True", "NoWaypointForWildcardService", why),)
    said = (unserved(entry, bound=binding.address is not None), left_out(_named(entry)))
    conditions += tuple(filter(None, said))
    return EntryDerived(tuple(services), tuple(_workloads(entry, world)), conditions)


def _named(entry: ServiceEntry) -> Iterator[str]:
    yield from (one.address for one in entry.endpoints)
    if not entry.endpoints and entry.resolution in _BY_NAME:
        yield from entry.hosts


def _taken(world: World, host: str) -> bool:
    """A Service of Kubernetes has this name."""
    service = _service_named(world, host)
    return service is not None and service.type != "ExternalName"


def _service_named(world: World, host: str) -> KubeService | None:
    parts = host.removesuffix(f".svc.{world.settings.domain}").split(".")
    if len(parts) != 2 or not host.endswith(f".svc.{world.settings.domain}"):
        return None
    return world.find(KubeService, parts[1], parts[0])


def _first_in_namespace(world: World, entry: ServiceEntry, host: str) -> bool:
    """Two of one namespace and host would be one resource: the older has it, a Service of Kubernetes before both."""
    service = _service_named(world, host)
    if service is not None and service.namespace == entry.namespace and service.type != "ExternalName":
        return False
    return next(one for one in world.owners(host) if one.namespace == entry.namespace) is entry


def _addresses(entry: ServiceEntry, host: str, network: str) -> tuple[NetworkAddress, ...]:
    if entry.addresses:
        return tuple(
            NetworkAddress(network, one.network_address, one.prefixlen if one.prefixlen < one.max_prefixlen else None)
            for one in entry.addresses
        )
    return tuple(NetworkAddress(network, ip) for given, ip in entry.allocated if given == host)


def _balancing(entry: ServiceEntry, annotations: Mapping[str, str]) -> LoadBalancing:
    if entry.resolution == "NONE":
        return LoadBalancing(LoadBalancingMode.PASSTHROUGH, (), HealthPolicy.ALLOW_ALL)
    return balancing("", entry.annotations, annotations)


def _workloads(entry: ServiceEntry, world: World) -> Iterator[Workload]:
    if not entry.endpoints:
        if entry.resolution in _BY_NAME and entry.selector is None:
            for host in entry.hosts:
                yield _workload(entry, Endpoint(address=host), (host,), world)
        return
    seen = set()
    for endpoint in entry.endpoints:
        if endpoint.address not in seen and not endpoint.address.startswith("unix://"):
            seen.add(endpoint.address)
            yield _workload(entry, endpoint, entry.hosts, world)


def _workload(entry: ServiceEntry, endpoint: Endpoint, hosts: tuple[str, ...], world: World) -> Workload:
    """Labels that count are the entry's, not the endpoint's."""
    settings = world.settings
    wildcard = endpoint.address.startswith("*.")
    where = None if wildcard else place_of(endpoint, world)
    canonical, revision = canonical_names(entry.labels, entry.name)
    ports = entry_endpoint_ports(entry, endpoint.ports)
    native = entry.labels.get("networking.istio.io/tunnel") == "http"
    network = where.network if where is not None else world.network
    workload = Workload(
        uid=f"{settings.cluster_id}/networking.istio.io/ServiceEntry/{entry.namespace}/{entry.name}/{endpoint.address}",
        name=entry.name,
        namespace=entry.namespace,
        addresses=where.addresses if where is not None else (),
        hostname=where.hostname if where is not None else endpoint.address,
        network=network,
        tunnel_protocol=TunnelProtocol.HBONE if native else TunnelProtocol.NONE,
        native_tunnel=native,
        trust_domain=settings.trust_domain,
        service_account=endpoint.service_account or "default",
        waypoint=bind(world, entry, entry.labels, "workload").address,
        canonical_name=canonical,
        canonical_revision=revision,
        workload_name=entry.name,
        authorization_policies=policies_of(world, entry.namespace, entry.labels),
        cluster_id=settings.cluster_id,
        network_gateway=gateway_of(world, network),
        services=MappingProxyType({f"{entry.namespace}/{host}": ports for host in hosts}),
        capacity=endpoint.weight or 1,
    )
    return workload if where is None else replace(workload, locality=where.locality)


def slice_workloads(part: EndpointSlice, world: World) -> list[Workload]:
    """Addresses of a slice that are no pods': outside of the mesh, and perhaps shared by several things."""
    service = world.find(KubeService, part.namespace, part.service)
    if service is None or part.address_type == "FQDN" or derive_service(service, {}, "", "") is None:
        return []
    settings = world.settings
    numbers = {port.name: port.port for port in part.ports if port.port is not None and port.protocol == "TCP"}
    ports = tuple(Port(port.port, numbers[port.name]) for port in service.ports if port.name in numbers)
    services = MappingProxyType({f"{service.namespace}/{hostname_of(service, settings.domain)}": ports})
    found: dict[str, Workload] = {}
    for endpoint in part.endpoints:
        first = endpoint.addresses[0]
        if first in found or (endpoint.target is not None and endpoint.target[0] == "Pod"):
            continue
        found[first] = Workload(
            uid=f"{settings.cluster_id}/discovery.k8s.io/EndpointSlice/{part.namespace}/{part.name}/{first}",
            name=part.name,
            namespace=part.namespace,
            addresses=tuple(parse_ip(address) for address in endpoint.addresses),
            network=world.network,
            trust_domain=settings.trust_domain,
            workload_type=WorkloadType.DEPLOYMENT,
            status=Health.HEALTHY if endpoint.ready else Health.UNHEALTHY,
            cluster_id=settings.cluster_id,
            services=services,
            network_mode=NetworkMode.HOST_NETWORK,
        )
    return list(found.values())


def allocations(entries: Iterable[ServiceEntry]) -> dict[str, tuple[tuple[str, IpAddress], ...]]:
    """Addresses for the hosts of ServiceEntries that have none, by record key, as status.addresses is to hold them.

    `entries`: all of them, the oldest first. What status gives already stays, unless an older entry has it; entries
    whose status is right are left out. Nothing is taken from one that needs no addresses any more.
    """
    taken: set[IpAddress] = set()
    kept: dict[str, tuple[tuple[str, IpAddress], ...]] = {}
    wanting = [entry for entry in entries if _allocatable(entry)]
    for entry in wanting:
        good = []
        for host, ip in entry.allocated:
            if host in entry.hosts and ip not in taken:
                taken.add(ip)
                good.append((host, ip))
        kept[entry.key] = tuple(good)
    free = [_free(one, taken) for one in _RANGES]
    found: dict[str, tuple[tuple[str, IpAddress], ...]] = {}
    for entry in wanting:
        given = kept[entry.key]
        for host in entry.hosts:
            if (is_dynamic(entry) or not host.startswith("*.")) and not any(one == host for one, _ in given):
                given += tuple((host, address) for numbers in free for address in islice(numbers, 1))
        if given != entry.allocated:
            found[entry.key] = given
    return found


def _allocatable(entry: ServiceEntry) -> bool:
    wanted = entry.labels.get(AUTO_ALLOCATE, "true").lower() != "false"
    return wanted and not entry.addresses and (entry.resolution not in ("NONE", DYNAMIC) or is_dynamic(entry))


def _free(whole: IPv4Network | IPv6Network, taken: set[IpAddress]) -> Iterator[IpAddress]:
    """Addresses of a range that nobody has, from the first that may be used."""
    first = int(whole.network_address)
    for number in range(1, whole.num_addresses - 1):
        ip = type(whole.network_address)(first + number)
        if ip not in taken:
            yield ip
