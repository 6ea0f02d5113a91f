"""Routes of the Gateway API on services: which apply to which port, where they lead, and what is said of each. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from ambient.control.derive_backends import CORE, Asked, Backends, Unresolved
from ambient.kube.objects import Condition, Record
from ambient.kube.routing import (
    Answer,
    AttachedRoute,
    BackendRef,
    ParentRef,
    RequestRoute,
    RouteMatch,
    RouteRule,
    StreamRoute,
)
from ambient.model.workload import Service
from ambient.waypoint.front import Front, Route, Stream
from ambient.waypoint.route_match import ordered

CONSUMERS: Final = "ambient.mesh/consumer-routes"
"""Annotation of a waypoint's Gateway: its services take routes of other namespaces, each for its own clients."""
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
        """The routes of its own namespace on all ports of a service, in the order to try them."""
        return self._requests(asked, own=True)

    def consumers(self, asked: Asked) -> tuple[Route, ...]:
        """Those of other namespaces, to be tried first: each is for clients of its own namespace, whom no other route
        concerns then (GEP-1426). What none of theirs fits gets a 404, as on any port that has routes. A port on which
        the owner's own routes limit requests has none: they would lead past the limits."""
        if not asked.consumers:
            return ()
        found = [(one.name.partition("/")[0], one) for one in self._requests(asked, own=False)]
        made = [replace(one, match=replace(one.match, namespace=home)) for home, one in found]
        ends = dict.fromkeys((home, one.port) for home, one in found)
        none = RouteRule(answer=Answer(404))
        return (
            *made,
            *(Route(f"{home}/none", port, RouteMatch(namespace=home), none, (), ()) for home, port in ends),
        )

    def itself(self, asked: Asked, theirs: Collection[Route], own: Collection[Route]) -> tuple[Route, ...]:
        """For ports that only routes of other namespaces (`theirs`) are on: everybody else asks the service."""
        bare = {one.port for one in theirs} - {one.port for one in own}
        return tuple(
            Route("default", port, RouteMatch(), RouteRule(), (self._backends.itself(asked, port),), ())
            for port in sorted(bare)
        )

    def _requests(self, asked: Asked, *, own: bool) -> tuple[Route, ...]:
        found: list[Route] = []
        ages: dict[str, tuple[str, str]] = {}
        closed = frozenset() if own else self._limited(asked.service)
        for route, port in self._attached(asked.service):
            ours = isinstance(route, RequestRoute) and (route.namespace == asked.service.namespace) is own
            if isinstance(route, RequestRoute) and ours and port not in closed:
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

    def _limited(self, service: Service) -> frozenset[int]:
        """The ports on which routes of its own namespace limit requests."""
        return frozenset(
            port
            for route, port in self._attached(service)
            if isinstance(route, RequestRoute) and route.namespace == service.namespace
            if any(rule.limits for rule in route.rules)
        )

    def _attached(self, service: Service) -> Iterator[tuple[AttachedRoute, int]]:
        for route, parent in self._on.get(service.key, ()):
            for port in service.ports:
                if parent.port in (0, port.service_port):
                    yield route, port.service_port

    def _parent(self, route: AttachedRoute, parent: ParentRef) -> Service | None:
        """The service of a parentRef; of those in other namespaces only one of a route about requests."""
        home = parent.namespace or route.namespace
        if parent.group not in CORE or parent.kind != "Service":
            return None
        if home != route.namespace and not isinstance(route, RequestRoute):
            return None
        service = self._backends.by_name.get((home, parent.name))
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
                home = parent.namespace or route.namespace
                lost.append(f"there is no Service {parent.name} with such a port in namespace {home}")
                continue
            front = asked.get(service.key, Asked(service, None))
            if service.namespace != route.namespace and not front.consumers:
                where = f"{service.namespace}/{service.name}"
                lost.append(f"the waypoint of Service {where} takes no routes of others ({CONSUMERS})")
                continue
            if service.namespace != route.namespace and (closed := self._closed(service, parent)):
                where = f"port {', '.join(map(str, closed))} of Service {service.namespace}/{service.name}"
                lost.append(f"{where} takes no routes of others, which would lead past the limits of its own")
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

    def _closed(self, service: Service, parent: ParentRef) -> list[int]:
        """The ports that a route of another namespace names and is not on."""
        return sorted(one for one in self._limited(service) if parent.port in (0, one))

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


def led_to(fronts: Iterable[Front]) -> dict[str, set[int]]:
    """Where the routes of these lead: ports by the service's key."""
    found: dict[str, set[int]] = {}
    for front in fronts:
        leads = [one for route in front.routes for one in (*route.destinations, *route.mirrors)]
        for one in (*leads, *(one for stream in front.streams for one in stream.destinations)):
            if one.hostname:
                found.setdefault(f"{one.namespace or front.namespace}/{one.hostname}", set()).add(one.port)
    return found
