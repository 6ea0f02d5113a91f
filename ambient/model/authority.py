"""What a tunnel that asks for something else than a pod's own address means at that pod (interop 1.6 and 1.7). Pure.

A waypoint answers for the addresses of what it stands in front of. A service's name means the pod's port of it, at its
endpoints, its waypoint, and wherever an application tunnel takes everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ambient.errors import InvalidInput
from ambient.model.address import Endpoint, IpAddress, parse_endpoint, port_number
from ambient.model.mesh import Mesh, address_name, blocks_name, hostname_name, service_name, workload_name
from ambient.model.waypoints import gateway_target, waypoints_of
from ambient.model.workload import GatewayAddress, NetworkAddress, Service, Workload


@dataclass(frozen=True, slots=True)
class Meaning:
    """`port` of the pod (0: not to be had here), `address` that stands for the service ("own network preferred, then
    IPv4"), and the names (as in `Changes.names`) that the answer rests on."""

    port: int = 0
    address: IpAddress | None = None
    depends: frozenset[str] = frozenset()


def stands_in_front(mesh: Mesh, pod: Workload) -> bool:
    """Something in the mesh names this pod, or a service it is behind, as its waypoint."""
    return any(mesh.is_waypoint(name) for name in _names(mesh, pod))


def _names(mesh: Mesh, pod: Workload) -> Iterable[str]:
    yield f"{pod.namespace}/{pod.hostname}"
    yield from (str(NetworkAddress(pod.network, ip)) for ip in pod.addresses)
    for key in pod.services:
        yield key
        service = mesh.service(key)
        if service is not None:
            yield from (str(NetworkAddress(vip.network, vip.ip)) for vip in service.addresses)


def meaning_of(mesh: Mesh, pod: Workload, authority: str, network: str) -> Meaning:
    """The meaning of "ip:port" or "host:port" at `pod`; port 0 also for what is neither."""
    depends = {workload_name(pod.uid)}
    try:
        endpoint = parse_endpoint(authority)
    except InvalidInput:
        return _of_name(mesh, pod, authority, network, depends)
    return _of_address(mesh, pod, endpoint, network, depends)


def _of_address(mesh: Mesh, pod: Workload, asked: Endpoint, network: str, depends: set[str]) -> Meaning:
    depends |= {address_name(network, asked.ip), blocks_name(network)}
    gateways: list[GatewayAddress] = []
    workload = mesh.workload_by_address(network, asked.ip)
    if workload is not None and workload.waypoint is not None:
        gateways.append(workload.waypoint)
    service = mesh.service_by_address(network, asked.ip, pod.namespace)
    if service is not None:
        depends.add(service_name(service.key))
        gateways += waypoints_of(service)
    if any(_leads_to(mesh, gateway, pod, depends) for gateway in gateways):
        return Meaning(asked.port, asked.ip, frozenset(depends))
    return Meaning(depends=frozenset(depends))


def _of_name(mesh: Mesh, pod: Workload, authority: str, network: str, depends: set[str]) -> Meaning:
    host, _, digits = authority.rpartition(":")
    port = port_number(digits)
    depends.add(hostname_name(host))
    service = mesh.service_by_hostname(host, pod.namespace)
    if service is None or not port:
        return Meaning(depends=frozenset(depends))
    depends.add(service_name(service.key))
    ours = pod.application_tunnel is not None or service.key in pod.services
    if not ours and not any(_leads_to(mesh, gateway, pod, depends) for gateway in waypoints_of(service)):
        return Meaning(depends=frozenset(depends))
    own = pod.services.get(service.key, ())
    targets = [p.target_port for ports in (own, service.ports) for p in ports if p.service_port == port]
    target = next((target for target in targets if target), 0)
    return Meaning(target, _standing_for(service, network), frozenset(depends))


def _standing_for(service: Service, network: str) -> IpAddress | None:
    exact = [vip for vip in service.addresses if vip.prefix_length is None]
    best = min(exact, key=lambda vip: (vip.network != network, vip.ip.version), default=None)
    return best.ip if best is not None else None


def _leads_to(mesh: Mesh, gateway: GatewayAddress, pod: Workload, depends: set[str]) -> bool:
    service, workload = gateway_target(mesh, gateway, pod.namespace, depends)
    if service is not None:
        return service.key in pod.services
    return workload is not None and workload.uid == pod.uid
