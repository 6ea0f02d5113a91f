"""Routes of the Gateway API on services: which apply to which port, where they lead, and what is said of each. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Final

from ambient.control.derive_backends import CORE, Asked, Backends, Unresolved
from ambient.kube.objects import Condition, Record
from ambient.kube.routing import AttachedRoute, BackendRef, ParentRef, RequestRoute, RouteRule, StreamRoute
from ambient.model.workload import Service
from ambient.waypoint.front import Route, Stream
from ambient.waypoint.route_match import ordered

ACCEPTED: Final = "Accepted"
RESOLVED: Final = "ResolvedRefs"


class Routing:
    """What is attached to which service."""

    def __init__(self, routes: Collection[AttachedRoute], backends: Backends) -> None:
        self._backends = backends
        self._on: dict[str, list[tuple[AttachedRoute, ParentRef]]] = {}
        for route in sorted(routes, key=age):
            for parent in dict.fromkeys(route.parents):
                service = self._parent(route, parent)
                if service is not None:
                    self._on.setdefault(service.key, []).append((route, parent))

    def requests(self, asked: Asked) -> tuple[Route, ...]:
        """The routes on all ports of a service, in the order to try them."""
        found: list[Route] = []
        ages: dict[str, tuple[str, str]] = {}
        for route, port in self._attached(asked.service):
            if isinstance(route, RequestRoute):
                for number, rule in enumerate(route.rules):
                    name = f"{route.namespace}/{route.name}/{number}"
                    ages[name] = age(route)
                    found += routes_of(self._backends, route, rule, name, asked, port)
        return tuple(dict.fromkeys(ordered(found, ages)))

    def streams(self, asked: Asked) -> tuple[Stream, ...]:
        """Of several that want the same connections the oldest has them."""
        found = []
        for route, port in self._attached(asked.service):
            for rule in route.streams if isinstance(route, StreamRoute) else ():
                leads = tuple(self._backends.destination(route, ref, asked, port) for ref in rule.backends)
                found.append(Stream(port, leads, rule.names))
        return first_of_each(found)

    def _attached(self, service: Service) -> Iterator[tuple[AttachedRoute, int]]:
        for route, parent in self._on.get(service.key, ()):
            for port in service.ports:
                if parent.port in (0, port.service_port):
                    yield route, port.service_port

    def _parent(self, route: AttachedRoute, parent: ParentRef) -> Service | None:
        """The service of a parentRef that holds; routes of other namespaces than its own do not."""
        if parent.group not in CORE or parent.kind != "Service" or parent.namespace not in ("", route.namespace):
            return None
        service = self._backends.by_name.get((route.namespace, parent.name))
        if service is None or (parent.port and all(one.service_port != parent.port for one in service.ports)):
            return None
        return service

    def conditions(self, route: AttachedRoute, asked: Mapping[str, Asked]) -> tuple[Condition, ...]:
        """What is to be said of a route; () when none of its parents is a Service. `asked`: by the service's key."""
        lost, wrong, idle = [], [], []
        ours = [one for one in dict.fromkeys(route.parents) if one.group in CORE and one.kind == "Service"]
        for parent in ours:
            service = self._parent(route, parent)
            if service is None:
                lost.append(f"there is no Service {parent.name} with such a port in namespace {route.namespace}")
                continue
            front = asked.get(service.key, Asked(service, None))
            if front.waypoint is None:
                idle.append(f"Service {service.name} has no waypoint")
            wrong += list(self._wrong(route, parent, front))
        if not ours:
            return ()
        accepted = Condition(ACCEPTED, "True", "Accepted", told(idle, "; until then without effect there"))
        if lost:
            accepted = Condition(ACCEPTED, "False", "NoMatchingParent", told(lost))
        resolved = Condition(RESOLVED, "True", "ResolvedRefs", "")
        if wrong:
            end = ": such requests get a 500" if isinstance(route, RequestRoute) else ": such connections are closed"
            resolved = Condition(RESOLVED, "False", wrong[0].reason, told([one.why for one in wrong], end))
        return accepted, resolved

    def _wrong(self, route: AttachedRoute, parent: ParentRef, front: Asked) -> Iterator[Unresolved]:
        for port in front.service.ports:
            for ref in _refs(route) if parent.port in (0, port.service_port) else ():
                try:
                    self._backends.resolve(route, ref, front, port.service_port)
                except Unresolved as error:
                    yield error


def age(route: AttachedRoute) -> tuple[str, str]:
    """The lower, the older."""
    return route.created or "~", f"{route.namespace}/{route.name}"


def routes_of(
    backends: Backends, route: Record, rule: RouteRule, name: str, asked: Asked, port: int
) -> Iterator[Route]:
    """Those of one rule, on one port."""
    destinations = tuple(backends.destination(route, ref, asked, port) for ref in rule.backends)
    mirrors = (replace(backends.destination(route, one.backend, asked, port), weight=one.share) for one in rule.mirrors)
    sent = tuple(one for one in mirrors if one.hostname and one.weight)
    for match in rule.matches:
        yield Route(name, port, match, rule, destinations, sent)


def first_of_each(found: Collection[Stream]) -> tuple[Stream, ...]:
    """Each port and name once: Envoy refuses a listener in which two chains want the same."""
    taken: set[tuple[int, str]] = set()
    kept = []
    for stream in found:
        names = tuple(one for one in stream.names if (stream.port, one) not in taken)
        if not names and (stream.names or (stream.port, "") in taken):
            continue
        taken.update((stream.port, one) for one in names or ("",))
        kept.append(replace(stream, names=names))
    return tuple(kept)


def _refs(route: AttachedRoute) -> Iterator[BackendRef]:
    if isinstance(route, RequestRoute):
        for rule in route.rules:
            yield from (*rule.backends, *(one.backend for one in rule.mirrors))
    elif isinstance(route, StreamRoute):
        for stream in route.streams:
            yield from stream.backends


def told(parts: list[str], end: str = "") -> str:
    """A message of them, each once."""
    return "; ".join(dict.fromkeys(parts))[:900] + (end if parts else "")
