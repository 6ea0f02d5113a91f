"""HTTPRoutes on services: which apply to which port, where their backends lead, and what is said of each. Pure.

A route may change where a request goes, never who may ask: a backend whose policies let less through than those of the
service that was asked for is not sent to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ambient.control.derive_waypoint import Waypoint
from ambient.kube.jwt_rules import JwtRule
from ambient.kube.objects import Condition, HTTPRoute
from ambient.kube.policies import PolicyRule
from ambient.kube.routing import BackendRef, ParentRef
from ambient.model.waypoints import waypoints_of
from ambient.model.workload import Service
from ambient.waypoint.front import Destination, Policy, Route
from ambient.waypoint.route_match import ordered

_CORE: Final = ("", "core")
ACCEPTED: Final = "Accepted"
RESOLVED: Final = "ResolvedRefs"


@dataclass(frozen=True, slots=True)
class Judged:
    """What requests to a service have to pass at its waypoint."""

    policies: tuple[Policy, ...] = ()
    tokens: tuple[JwtRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """The service that a route is on, as its waypoint has it. `waypoint` None: it has none that serves."""

    service: Service
    waypoint: Waypoint | None
    judged: Judged = Judged()


@dataclass(frozen=True, slots=True)
class Unresolved(Exception):
    """A backend that is not sent to; `reason` is the Gateway API's."""

    reason: str
    why: str


class Routing:
    """`services`: (namespace, name) -> service; `judged(service, waypoint)`: what is judged there for it."""

    def __init__(
        self,
        routes: Collection[HTTPRoute],
        services: Mapping[tuple[str, str], Service],
        judged: Callable[[Service, Waypoint], Judged],
    ) -> None:
        self._services = services
        self._judged = judged
        self._on: dict[str, list[tuple[HTTPRoute, ParentRef]]] = {}
        for route in routes:
            for parent in dict.fromkeys(route.parents):
                service = self._parent(route, parent)
                if service is not None:
                    self._on.setdefault(service.key, []).append((route, parent))

    def of(self, asked: Asked) -> tuple[Route, ...]:
        """The routes on all ports of a service, in the order to try them."""
        found: list[Route] = []
        age: dict[str, tuple[str, str]] = {}
        for route, parent in self._on.get(asked.service.key, ()):
            for port in asked.service.ports:
                if parent.port in (0, port.service_port):
                    made = list(self._routes(route, asked, port.service_port))
                    age.update((one.name, (route.created or "~", f"{route.namespace}/{route.name}")) for one in made)
                    found += made
        return tuple(dict.fromkeys(ordered(found, age)))

    def _routes(self, route: HTTPRoute, asked: Asked, port: int) -> Iterator[Route]:
        for number, rule in enumerate(route.rules):
            destinations = tuple(self._destination(route, ref, asked, port) for ref in rule.backends)
            mirrors = (
                replace(self._destination(route, one.backend, asked, port), weight=one.share) for one in rule.mirrors
            )
            sent = tuple(one for one in mirrors if one.hostname and one.weight)
            for match in rule.matches:
                yield Route(f"{route.namespace}/{route.name}/{number}", port, match, rule, destinations, sent)

    def _destination(self, route: HTTPRoute, ref: BackendRef, asked: Asked, port: int) -> Destination:
        try:
            service = self.resolve(route, ref, asked, port)
        except Unresolved:
            return Destination("", 0, ref.weight)
        return Destination(service.hostname, ref.port, ref.weight)

    def resolve(self, route: HTTPRoute, ref: BackendRef, asked: Asked, port: int) -> Service:
        """Where a backend is; raises Unresolved."""
        if ref.group not in _CORE or ref.kind != "Service":
            raise Unresolved("InvalidKind", f"{ref.kind} {ref.name}: only a Service can be sent to")
        if ref.namespace not in ("", route.namespace):
            raise Unresolved("RefNotPermitted", f"{ref.namespace}/{ref.name} is in another namespace")
        service = self._services.get((route.namespace, ref.name))
        if service is None or all(one.service_port != ref.port for one in service.ports):
            raise Unresolved("BackendNotFound", f"there is no Service {ref.name} with port {ref.port}")
        waypoint = asked.waypoint
        if waypoint is None or (service.key, ref.port) == (asked.service.key, port):
            return service
        through = waypoints_of(service)
        if through and waypoint.address not in through:
            raise Unresolved("RefNotPermitted", f"Service {ref.name} is behind another waypoint")
        if not _as_strict(asked.judged, self._judged(service, waypoint)):
            why = f"Service {ref.name} has policies of its own that {asked.service.name} has not"
            raise Unresolved("RefNotPermitted", why)
        return service

    def _parent(self, route: HTTPRoute, parent: ParentRef) -> Service | None:
        """The service of a parentRef that holds; routes of other namespaces than its own do not."""
        if parent.group not in _CORE or parent.kind != "Service" or parent.namespace not in ("", route.namespace):
            return None
        service = self._services.get((route.namespace, parent.name))
        if service is None or (parent.port and all(one.service_port != parent.port for one in service.ports)):
            return None
        return service

    def conditions(self, route: HTTPRoute, asked: Mapping[str, Asked]) -> tuple[Condition, ...]:
        """What is to be said of a route; () when none of its parents is a Service. `asked`: by the service's key."""
        lost, wrong, idle = [], [], []
        ours = [one for one in dict.fromkeys(route.parents) if one.group in _CORE and one.kind == "Service"]
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
        accepted = Condition(ACCEPTED, "True", "Accepted", _told(idle, "; until then without effect there"))
        if lost:
            accepted = Condition(ACCEPTED, "False", "NoMatchingParent", _told(lost))
        resolved = Condition(RESOLVED, "True", "ResolvedRefs", "")
        if wrong:
            why = _told([one.why for one in wrong], ": such requests get a 500")
            resolved = Condition(RESOLVED, "False", wrong[0].reason, why)
        return accepted, resolved

    def _wrong(self, route: HTTPRoute, parent: ParentRef, front: Asked) -> Iterator[Unresolved]:
        for port in front.service.ports:
            for rule in route.rules if parent.port in (0, port.service_port) else ():
                for ref in (*rule.backends, *(one.backend for one in rule.mirrors)):
                    try:
                        self.resolve(route, ref, front, port.service_port)
                    except Unresolved as error:
                        yield error


def _told(parts: list[str], end: str = "") -> str:
    return "; ".join(dict.fromkeys(parts))[:900] + (end if parts else "")


def _as_strict(judged: Judged, wanted: Judged) -> bool:
    """Whether what `judged` lets through is let through by `wanted` as well, as far as can be seen: every DENY of
    theirs is among ours, and where they have an ALLOW, all of ours are theirs. A rule about ports means another thing
    at another port, and one about tokens where others are believed."""
    ours, theirs = _enforced(judged.policies), _enforced(wanted.policies)
    if judged.tokens != wanted.tokens and (wanted.tokens or theirs):
        return False
    refusing = {one for one in theirs if one.action != "ALLOW"}
    allows = {one for one in ours if one.action == "ALLOW"}
    wanted_allows = {one for one in theirs if one.action == "ALLOW"}
    if any(_about_ports(rule) for one in (*theirs, *ours) for rule in one.rules) and theirs:
        return False
    if not refusing <= {one for one in ours if one.action != "ALLOW"}:
        return False
    return not wanted_allows or (bool(allows) and allows <= wanted_allows)


def _enforced(policies: tuple[Policy, ...]) -> set[Policy]:
    return {one for one in policies if one.action != "AUDIT" and not one.dry_run}


def _about_ports(rule: PolicyRule) -> bool:
    return any(one.ports or one.not_ports for one in rule.operations) or any(
        when.key.startswith("destination.") for when in rule.when
    )
