"""Waypoints and gateways by their addresses, and who may reach a workload without its waypoint. Pure."""

from __future__ import annotations

from contextlib import suppress

from ambient.errors import InvalidInput
from ambient.model.balance import port_of
from ambient.model.identity import parse_identity
from ambient.model.mesh import Mesh, ServiceEndpoint, address_name, blocks_name, hostname_name, service_name
from ambient.model.mesh import workload_name as name_of_workload
from ambient.model.workload import GatewayAddress, NamespacedHostname, NetworkAddress, Service, Workload

NOBODY = ""
"""A principal that no peer has: what a waypoint that cannot be found leaves."""


def waypoints_of(service: Service) -> list[GatewayAddress]:
    """Every waypoint that connections to the service may take."""
    weighted = [entry.destination for entry in service.weighted_waypoints]
    return weighted + ([service.waypoint] if service.waypoint is not None else [])


def names_of(service: Service) -> tuple[str, ...]:
    """SPIFFE URIs that the service's endpoints may present beside their own. Its other names (of hosts, say) are not
    for us: nobody can prove them here."""
    found = []
    for name in service.subject_alt_names:
        with suppress(InvalidInput):
            found.append(str(parse_identity(name)))
    return tuple(found)


def gateway_target(
    mesh: Mesh, gateway: GatewayAddress, client_namespace: str, depends: set[str]
) -> tuple[Service | None, Workload | None]:
    """What a gateway address stands for: a service, or else a workload, or neither.

    Adds to `depends` the names (as in `Changes.names`) that the answer rests on.
    """
    service, workload = None, None
    match gateway.destination:
        case NamespacedHostname() as name:
            depends |= {hostname_name(name.hostname), service_name(str(name))}
            service = mesh.service(str(name))
            if service is None:
                workload = mesh.workload_by_hostname(name.hostname)
                workload = workload if workload is not None and workload.namespace == name.namespace else None
        case NetworkAddress() as address:
            depends |= {address_name(address.network, address.ip), blocks_name(address.network)}
            workload = mesh.workload_by_address(address.network, address.ip)
            if workload is None:
                service = mesh.service_by_address(address.network, address.ip, client_namespace)
    if workload is not None:
        depends.add(name_of_workload(workload.uid))
    if service is not None:
        depends.add(service_name(service.key))
    return (
        None if service is None or service.refused else service,
        None if workload is None or workload.refused else workload,
    )


def waypoint_principals(mesh: Mesh, workload: Workload) -> tuple[str, ...]:
    """SPIFFE URIs of the waypoints in front of a workload: only these may reach it (but for `open_ports`).

    () = no waypoint. A waypoint that is configured but unknown gives a tuple that no peer can satisfy; so does a
    service that was not understood, since a waypoint may be what was not. The waypoint of a service without addresses
    does not count: nobody can dial such a service, so it would only keep everybody out.
    """
    services = [service for key in workload.services if (service := mesh.service(key)) is not None]
    through = [waypoint for service in services if service.addresses for waypoint in waypoints_of(service)]
    gateways = [workload.waypoint, *through]
    principals: set[str] = set()
    configured = any(service.refused for service in services)
    for gateway in gateways:
        if gateway is not None:
            configured = True
            principals.update(_identities_behind(mesh, gateway, workload.namespace))
    return tuple(sorted(principals)) if principals else (NOBODY,) if configured else ()


def needs_of(mesh: Mesh, workload: Workload) -> frozenset[str]:
    """Names (as in `Changes.names`) of all that `waypoint_principals` and `open_ports` rest on: the services and
    the waypoints in front of it and of them."""
    services = (mesh.service(key) for key in workload.services)
    gateways = [workload.waypoint, *(w for service in services if service is not None for w in waypoints_of(service))]
    names = {service_name(key) for key in workload.services}
    for gateway in gateways:
        if gateway is not None:
            gateway_target(mesh, gateway, workload.namespace, names)
    return frozenset(names)


def open_ports(mesh: Mesh, workload: Workload) -> tuple[int, ...]:
    """Ports of a workload with a waypoint of its own that are reached without it all the same: those that its services
    offer. A call of a service never takes a workload's waypoint, so it arrives directly. A service without addresses is
    called by those of its pods, so through it.

    None where one of the services has a waypoint, or is not known: then nothing may arrive past that, by whatever
    other name of the same pod.
    """
    found: set[int] = set()
    for key, ports in workload.services.items():
        service = mesh.service(key)
        if service is None or service.refused or (service.addresses and waypoints_of(service)):
            return ()
        if not service.addresses:
            continue
        endpoint = ServiceEndpoint(workload, tuple(ports))
        found |= {port_of(service, endpoint, entry.service_port) for entry in (*service.ports, *ports)}
    return tuple(sorted(found - {0}))


def _identities_behind(mesh: Mesh, gateway: GatewayAddress, namespace: str) -> set[str]:
    service, workload = gateway_target(mesh, gateway, namespace, set())
    if service is not None:
        endpoints = (endpoint.workload for endpoint in mesh.endpoints(service.key))
        # What stands for a whole other network has no identity of its own: its name proves nobody.
        behind = {str(one.identity) for one in endpoints if one.network_gateway is None and not one.refused}
        return behind | set(names_of(service))
    return {str(workload.identity)} if workload is not None else set()
