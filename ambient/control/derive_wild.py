"""ServiceEntries whose endpoints are whatever names clients ask for: wildcard hosts, resolution DYNAMIC_DNS. Pure.

A name that another service has, in a namespace whose word counts here, is that one's: who dials the wildcard's address
for it would be past that one's policies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from ambient.control.derive_service import entry_protocol
from ambient.kube.networking import ServiceEntry
from ambient.kube.objects import Condition, Records
from ambient.model.names import wildcards
from ambient.model.workload import AppProtocol, Service
from ambient.waypoint.front import FrontPort, Wild

SERVED: Final = "ambient.mesh/HostsServed"
DYNAMIC: Final = "DYNAMIC_DNS"
_CARRYING: Final = frozenset({AppProtocol.HTTP11, AppProtocol.HTTP2, AppProtocol.GRPC, AppProtocol.TLS})
"""Protocols in which a client says whom it asks."""


def is_dynamic(entry: ServiceEntry) -> bool:
    """Its names are looked up as they are asked for."""
    return entry.resolution == DYNAMIC and entry.location == "MESH_EXTERNAL"


def unserved(entry: ServiceEntry, *, bound: bool) -> Condition | None:
    """What is to be said of an entry's hosts, None for nothing. `bound`: to a waypoint."""
    wild = [host for host in entry.hosts if host.startswith("*.")]
    if entry.resolution == DYNAMIC:
        return _of_dynamic(entry, wild) if bound else None
    if entry.resolution == "NONE" and bound:
        why = "resolution: NONE goes where clients say, and a waypoint sends nobody there: nothing is served"
        return Condition(SERVED, "False", "NotSupported", why)
    if not wild:
        return None
    named = ", ".join(wild)[:300]
    if entry.resolution.startswith("DNS") and not entry.endpoints and entry.selector is None:
        why = f"hosts: {named} cannot be looked up; resolution {DYNAMIC} looks up what clients ask for"
        return Condition(SERVED, "False", "NothingToLookUp", why)
    if not entry.addresses:
        why = f"addresses: nobody is told an address for {named} with resolution {entry.resolution}; {DYNAMIC} has one"
        return Condition(SERVED, "False", "NoAddress", why)
    return None


def _of_dynamic(entry: ServiceEntry, wild: Iterable[str]) -> Condition:
    if not is_dynamic(entry):
        why = f"location: {DYNAMIC} is for hosts outside of the mesh (MESH_EXTERNAL)"
        return Condition(SERVED, "False", "NotSupported", why)
    odd = [port for port in entry.ports if entry_protocol(port.protocol) not in _CARRYING]
    if odd:
        told = ", ".join(f"{port.name} ({port.protocol or 'no protocol'})" for port in odd)[:300]
        why = f"ports: {told}: only in HTTP and TLS do clients say whom they ask; nothing is served there"
        return Condition(SERVED, "False", "UnsupportedProtocol", why)
    return Condition(
        SERVED, "True", "AsAsked", f"names below {', '.join(wild)[:300]} are looked up as they are asked for"
    )


class Wilds:
    """Of one snapshot."""

    def __init__(self, records: Records, services: Mapping[str, Service], root_namespace: str) -> None:
        self._records = records
        self._services = services
        self._root_namespace = root_namespace
        self._below: dict[str, list[Service]] | None = None
        self._elsewhere: dict[tuple[str, str], tuple[str, ...]] = {}

    def ports(self, service: Service, ports: tuple[FrontPort, ...], home: str) -> tuple[FrontPort, ...]:
        """The ports of a service as a proxy of namespace `home` serves them."""
        entry = self._records.find(ServiceEntry, service.namespace, service.name)
        if entry is None or not is_dynamic(entry) or service.hostname not in entry.hosts:
            return ports
        targets = {one.service_port: one.target_port for one in service.ports if one.app_protocol in _CARRYING}
        domain, elsewhere = service.hostname.removeprefix("*."), self._others(service, home)
        return tuple(
            replace(port, wild=Wild(domain, targets[port.number] or port.number, elsewhere), backends=(), subsets=())
            for port in ports
            if port.number in targets
        )

    def _others(self, service: Service, home: str) -> tuple[str, ...]:
        if self._below is None:
            self._below = self._found_below()
        key = (service.key, home)
        if key not in self._elsewhere:
            heard = {service.namespace, home, self._root_namespace}
            found = {one.hostname for one in self._below[service.hostname] if one.namespace in heard}
            self._elsewhere[key] = tuple(sorted(found))
        return self._elsewhere[key]

    def _found_below(self) -> dict[str, list[Service]]:
        """The services below each wildcard whose names are looked up, but for itself: in one pass, as there may be many
        of both."""
        hosts = (host for entry in self._records.of(ServiceEntry) if is_dynamic(entry) for host in entry.hosts)
        found: dict[str, list[Service]] = {host: [] for host in hosts}
        for service in self._services.values() if found else ():
            for one in wildcards(service.hostname):
                if one in found and one != service.hostname:
                    found[one].append(service)
        return found
