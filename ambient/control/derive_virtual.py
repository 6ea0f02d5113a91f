"""VirtualServices at waypoints: which one is in force for a service, and what it makes of it. Pure.

It has the word on ports that no route of the Gateway API is on. Of several that name a service the one with the more
exact host counts, of equal ones the oldest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final

from ambient.control.derive_backends import Asked, Backends, Unresolved
from ambient.control.derive_hosts import exactness, exported_to
from ambient.control.derive_routes import first_of_each, routes_of, told
from ambient.control.derive_target import ATTACHED
from ambient.kube.objects import Condition
from ambient.kube.routing import BackendRef, VirtualService
from ambient.model.workload import AppProtocol
from ambient.waypoint.front import Route, Stream

_UNREAD: Final = (AppProtocol.TCP, AppProtocol.TLS)
_READ: Final = (AppProtocol.HTTP11, AppProtocol.HTTP2, AppProtocol.GRPC)


@dataclass(frozen=True, slots=True)
class _Note:
    """What is to be said of the VirtualService `key` for one service: that it is in force, or why not."""

    key: str
    served: str = ""
    beside: str = ""
    wrong: Unresolved | None = None


class Virtuals:
    """All of a mesh's. `look` at every service first, then `conditions`."""

    def __init__(self, found: Collection[VirtualService], backends: Backends) -> None:
        self._backends = backends
        self._by_namespace: dict[str, list[VirtualService]] = {}
        for one in sorted(found, key=lambda one: (one.created or "~", one.key)):
            if one.mesh:
                self._by_namespace.setdefault(one.namespace, []).append(one)
        self._notes: dict[tuple[str, str], list[_Note]] = {}

    def look(self, asked: Asked, taken: Collection[int]) -> tuple[tuple[Route, ...], tuple[Stream, ...]]:
        """What is made of a service; `taken`: ports whose requests are routed already."""
        notes = self._notes[asked.service.key, str(asked.waypoint)] = []
        one = self._of(asked, notes)
        if one is None:
            return (), ()
        read = [port.service_port for port in asked.service.ports if port.app_protocol not in _UNREAD]
        carried = [port.service_port for port in asked.service.ports if port.app_protocol not in _READ]
        left = [port for port in read if port not in taken]
        if one.http and read and not left:
            notes.append(_Note(one.key, beside=f"{asked.service.hostname} has routes of the Gateway API"))
        else:
            notes.append(_Note(one.key, served=asked.service.hostname))
        notes += [_Note(one.key, wrong=error) for error in self._wrong(one, asked, left, carried)]
        routes = [made for port in left for made in self._routes(one, asked, port)]
        return tuple(dict.fromkeys(routes)), first_of_each(list(self._streams(one, asked, carried)))

    def _of(self, asked: Asked, notes: list[_Note]) -> VirtualService | None:
        waypoint, service = asked.waypoint, asked.service
        if waypoint is None:
            return None
        fitting = [
            (max(exactness(host, one.namespace, service) for host in one.hosts), one)
            for namespace in dict.fromkeys((service.namespace, waypoint.namespace))
            for one in self._by_namespace.get(namespace, ())
            if one.hosts and exported_to(one.export_to, namespace, waypoint.namespace)
        ]
        best = max((exact for exact, _ in fitting), default=0)
        chosen = [one for exact, one in fitting if exact == best and exact]
        notes += [_Note(other.key, beside=f"{service.hostname} is {chosen[0].key}'s") for other in chosen[1:]]
        return chosen[0] if chosen else None

    def _routes(self, one: VirtualService, asked: Asked, port: int) -> Iterator[Route]:
        for number, entry in enumerate(one.http):
            pairs = zip(entry.rule.matches, entry.ports, strict=True)
            matches = tuple(match for match, wanted in pairs if wanted in (0, port))
            name = f"{one.namespace}/{one.name}/{number}"
            yield from routes_of(self._backends, one, replace(entry.rule, matches=matches), name, asked, port)

    def _streams(self, one: VirtualService, asked: Asked, ports: Collection[int]) -> Iterator[Stream]:
        for port in ports:
            for rule in one.streams:
                if rule.port in (0, port):
                    leads = tuple(self._backends.destination(one, ref, asked, port) for ref in rule.backends)
                    yield Stream(port, leads, rule.names)

    def _wrong(
        self, one: VirtualService, asked: Asked, read: Collection[int], carried: Collection[int]
    ) -> Iterator[Unresolved]:
        refs = [(port, ref) for port in read for ref in _requests(one, port)]
        refs += [(port, ref) for port in carried for ref in _connections(one, port)]
        for port, ref in refs:
            try:
                self._backends.resolve(one, ref, asked, port)
            except Unresolved as error:
                yield error

    def conditions(self) -> dict[str, tuple[Condition, ...]]:
        """What is to be said of each that a waypoint has to do with."""
        found: dict[str, list[_Note]] = {}
        for _, notes in sorted(self._notes.items()):
            for note in notes:
                found.setdefault(note.key, []).append(note)
        return {key: (_said(notes),) for key, notes in found.items()}


def _said(notes: Collection[_Note]) -> Condition:
    wrong = [one.wrong for one in notes if one.wrong is not None]
    if wrong:
        why = told([one.why for one in wrong], ": what leads there is refused")
        return Condition(ATTACHED, "False", wrong[0].reason, why)
    served = told([one.served for one in notes if one.served])
    if served:
        return Condition(ATTACHED, "True", "Accepted", f"in force for {served}")
    return Condition(ATTACHED, "False", "Conflicted", told([one.beside for one in notes]))


def _requests(one: VirtualService, port: int) -> Iterator[BackendRef]:
    for entry in one.http:
        if any(wanted in (0, port) for wanted in entry.ports):
            yield from (*entry.rule.backends, *(mirror.backend for mirror in entry.rule.mirrors))


def _connections(one: VirtualService, port: int) -> Iterator[BackendRef]:
    for stream in one.streams:
        if stream.port in (0, port):
            yield from stream.backends
