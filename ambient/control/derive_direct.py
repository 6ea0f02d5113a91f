"""Which workloads each waypoint stands before when they are called by their own addresses. Pure.

Kept from snapshot to snapshot, as what is behind a service is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from ambient.control.derive_endpoints import protocol_of
from ambient.model.balance import port_of
from ambient.model.mesh import ServiceEndpoint
from ambient.model.workload import GatewayAddress, NetworkMode, Service, TunnelProtocol, Workload
from ambient.waypoint.front import Called, Direct, Protocol

_OUTSIDE: Final = "~plain"
"""Behind an account's name where there is no tunnel: no account has this sign in its name."""


class Directs:
    """`put` and `take` every workload; `of` gives those of a waypoint, the same object as before where none of them has
    changed."""

    def __init__(self) -> None:
        self._waypoint_of: dict[str, str] = {}
        self._held: dict[str, dict[str, Workload]] = {}
        self._made: dict[str, tuple[Direct, ...]] = {}

    def put(self, workload: Workload) -> None:
        """One that has no address of its own cannot be called by it."""
        self.take(workload.uid)
        own = workload.network_mode is NetworkMode.STANDARD and workload.network_gateway is None
        if workload.waypoint is None or not workload.addresses or not own:
            return
        name = str(workload.waypoint.destination)
        self._waypoint_of[workload.uid] = name
        self._held.setdefault(name, {})[workload.uid] = workload
        self._made.pop(name, None)

    def take(self, uid: str) -> None:
        name = self._waypoint_of.pop(uid, None)
        if name is not None:
            del self._held[name][uid]
            self._made.pop(name, None)

    def renew(self) -> None:
        """Services are other ones, and with them what is spoken on ports."""
        self._made = {}

    def of(self, waypoint: GatewayAddress, services: Mapping[str, Service]) -> tuple[Direct, ...]:
        """By account, without anything that is judged. An address that workloads of several accounts claim is
        nobody's."""
        name = str(waypoint.destination)
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = tuple(_grouped(self._held.get(name, {}).values(), services))
        return found


def _grouped(workloads: Iterable[Workload], services: Mapping[str, Service]) -> Iterable[Direct]:
    groups: dict[tuple[str, str, str], list[Workload]] = {}
    for one in sorted(workloads, key=lambda one: one.uid):
        tunnelled = one.tunnel_protocol is not TunnelProtocol.NONE
        identity = str(one.identity) if tunnelled else ""
        account = one.service_account if tunnelled else f"{one.service_account}{_OUTSIDE}"
        groups.setdefault((one.namespace, account, identity), []).append(one)
    claims = Counter(ip for group in groups.values() for ip in {ip for one in group for ip in one.addresses})
    for (namespace, account, identity), group in sorted(groups.items()):
        taken: set[object] = set()
        called = []
        for one in group:
            own = tuple(ip for ip in one.addresses if claims[ip] == 1 and ip not in taken)
            taken.update(own)
            if own:
                called.append(Called(own, _declared(one, services)))
        if called:
            yield Direct(namespace, account, identity, tuple(called))


def _declared(workload: Workload, services: Mapping[str, Service]) -> tuple[tuple[int, Protocol], ...]:
    """Where services say different things of a port, nobody says anything."""
    said: dict[int, set[Protocol]] = {}
    for key, ports in workload.services.items():
        if (service := services.get(key)) is None:
            continue
        for port in service.ports:
            target = port_of(service, ServiceEndpoint(workload, tuple(ports)), port.service_port)
            said.setdefault(target, set()).add(protocol_of(port))
    return tuple(
        (number, protocol)
        for number, found in sorted(said.items())
        if number and len(found) == 1
        for protocol in found
        if protocol is not Protocol.AUTO
    )
