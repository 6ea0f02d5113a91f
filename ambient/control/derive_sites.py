"""What is behind a listener of a gateway: for each host name its routes, for each server name where its bytes go. Pure.

Each route is made once and looked up by its host names: a listener may have thousands of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ambient.control.derive_attached import ANY, Attached, Face, covering, exactness, holder
from ambient.control.derive_backends import Unresolved
from ambient.control.gateway_pools import Pools
from ambient.kube.routing import AttachedRoute, BackendRef, RequestRoute, RouteRule, StreamRoute
from ambient.waypoint.door import Site
from ambient.waypoint.front import Destination, Route
from ambient.waypoint.route_match import ordered

_USUAL_PORTS: Final = (80, 443)
_SLICE: Final = 20
"""Host names looked at in one go: a millisecond or two."""


MOST_ADDED: Final = 16384
"""What routes of one namespace may add on a Gateway to host names more exact than theirs, in matches times names: each
name has all of its routes in Envoy's tables, where few objects could make millions."""


@dataclass(frozen=True, slots=True)
class Behind:
    """What a listener leads to: `sites`, or where it carries bytes. `wanted`: host names and ports of the services.
    `left`: keys of routes that are not tried for more exact host names, for they would be too many."""

    sites: tuple[Site, ...] = ()
    destinations: tuple[tuple[str, tuple[Destination, ...]], ...] = ()
    wanted: frozenset[tuple[str, int]] = frozenset()
    left: frozenset[str] = frozenset()


def behind(face: Face, peers: list[Face], pools: Pools, added: Counter[str]) -> Generator[None, None, Behind]:
    """In small steps. `peers`: the listeners of its port that are served; `added`: by namespace, what its routes have
    added so far (MOST_ADDED)."""
    if face.listener.protocol == "TLS":
        led = []
        for number, leading in enumerate(carried(face, peers, pools)):
            led.append(leading)
            if number % _SLICE == 0:
                yield
        return Behind(destinations=tuple(led), wanted=_wanted(one for _, to in led for one in to))
    routes = _Routes(face.listener.port, pools, _by_host(face))
    names = []
    for number, name in enumerate(_held(face, peers, routes.by_host.keys() | {face.listener.hostname or ANY})):
        names.append(name)
        routes.reach(name)
        if number % _SLICE == 0:
            yield
    left = routes.limit(added)
    sites: list[Site] = []
    every: dict[int, Route] = {}
    for number, name in enumerate(names):
        found = routes.behind(name)
        every |= found
        sites.append(Site(name, tuple(found.values())))
        if number % _SLICE == 0:
            yield
    wanted = _wanted(one for route in every.values() for one in (*route.destinations, *route.mirrors))
    return Behind(tuple(sites), wanted=wanted, left=left)


def _wanted(destinations: Iterable[Destination]) -> frozenset[tuple[str, int]]:
    return frozenset((one.hostname, one.port) for one in destinations if one.hostname)


def carried(face: Face, peers: list[Face], pools: Pools) -> Iterator[tuple[str, tuple[Destination, ...]]]:
    """For each server name that belongs to this listener where its bytes go: of several routes the oldest says so."""
    by_host = _by_host(face)
    for name in _held(face, peers, by_host):
        fitting = [one.route for one in by_host[name] if isinstance(one.route, StreamRoute)]
        route = min(fitting, key=lambda one: (one.created or "~", one.key))
        if route.streams:
            yield name, tuple(_destination(route, ref, pools) for ref in route.streams[0].backends)


def _by_host(face: Face) -> dict[str, list[Attached]]:
    found: dict[str, list[Attached]] = {}
    for one in face.attached:
        for host in one.hostnames:
            found.setdefault(host, []).append(one)
    return found


def _held(face: Face, peers: list[Face], names: Iterable[str]) -> Iterator[str]:
    """Those of the names that belong to this listener, the most exact first."""
    by_name = {one.listener.hostname or ANY: one for one in peers}
    for name in sorted(names, key=lambda one: (exactness(one), one), reverse=True):
        if holder(by_name, name) is face:
            yield name


@dataclass(slots=True)
class _Routes:
    """Of one listener, made when they are asked for: `reach` each host name, then `limit`, then ask."""

    port: int
    pools: Pools
    by_host: Mapping[str, list[Attached]]
    _reached: Counter[str] = field(default_factory=Counter)
    _left: set[int] = field(default_factory=set)
    _of: dict[tuple[str, bool], list[Route]] = field(default_factory=dict)
    _made: dict[int, list[Route]] = field(default_factory=dict)

    def reach(self, name: str) -> None:
        self._reached.update(host for host in covering(name) if host != name and host in self.by_host)

    def limit(self, added: Counter[str]) -> frozenset[str]:
        """Keys of the routes that are for their own names alone: of a namespace's the oldest are tried for others."""
        reaching: dict[int, tuple[RequestRoute, int]] = {}
        for host, number in self._reached.items():
            for one in self.by_host[host]:
                if isinstance(one.route, RequestRoute):
                    before = reaching.get(id(one.route), (one.route, 0))[1]
                    reaching[id(one.route)] = (one.route, before + number)
        left = set()
        for route, number in sorted(reaching.values(), key=lambda one: (one[0].created or "~", one[0].key)):
            adds = number * sum(len(rule.matches) for rule in route.rules)
            if added[route.namespace] + adds > MOST_ADDED:
                left.add(route.key)
                self._left.add(id(route))
            else:
                added[route.namespace] += adds
        return frozenset(left)

    def behind(self, name: str) -> dict[int, Route]:
        """Of the more exact name first. By identity: one that is here under several names was made once, and to compare
        them costs more than all else."""
        return {id(one): one for host in covering(name) for one in self._ordered(host, wide=host != name)}

    def _ordered(self, host: str, *, wide: bool) -> list[Route]:
        """Those of exactly this name, as the API orders them. `wide`: that are tried for more exact ones as well."""
        if host not in self.by_host:
            return []
        found = self._of.get((host, wide))
        if found is None:
            found = self._of[host, wide] = self._of_host(host, self._left if wide else ())
        return found

    def _of_host(self, host: str, left: Collection[int]) -> list[Route]:
        found: list[Route] = []
        age: dict[str, tuple[str, str]] = {}
        for one in self.by_host[host]:
            route = one.route
            if isinstance(route, RequestRoute) and id(route) not in left:
                for each in self._made_of(route):
                    found.append(each)
                    age[each.name] = (route.created or "~", f"{route.namespace}/{route.name}")
        return ordered(found, age)

    def _made_of(self, route: RequestRoute) -> list[Route]:
        found = self._made.get(id(route))
        if found is None:
            found = self._made[id(route)] = list(_routes_of(route, self.port, self.pools))
        return found


def _routes_of(route: RequestRoute, port: int, pools: Pools) -> Iterator[Route]:
    """Each match of each rule, with where its backends lead."""
    for number, written in enumerate(route.rules):
        rule = _on_port(written, port)
        destinations = tuple(_destination(route, ref, pools) for ref in rule.backends)
        mirrors = (replace(_destination(route, one.backend, pools), weight=one.share) for one in rule.mirrors)
        sent = tuple(one for one in mirrors if one.hostname and one.weight)
        for match in dict.fromkeys(rule.matches):
            yield Route(f"{route.namespace}/{route.name}/{number}", port, match, rule, destinations, sent)


def _on_port(rule: RouteRule, port: int) -> RouteRule:
    """A redirect that says neither scheme nor port leads to the listener's, which clients need not have named."""
    redirect = rule.redirect
    if redirect is None or redirect.port or redirect.scheme or port in _USUAL_PORTS:
        return rule
    return replace(rule, redirect=replace(redirect, port=port))


def _destination(route: AttachedRoute, ref: BackendRef, pools: Pools) -> Destination:
    try:
        hostname = pools.resolve(route, ref).hostname
        return Destination(hostname, ref.port, ref.weight, request=ref.request, response=ref.response)
    except Unresolved:
        return Destination("", 0, ref.weight)
