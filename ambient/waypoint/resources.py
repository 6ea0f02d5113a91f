"""Everything that one waypoint is told: from its view to Envoy's resources. Pure: equal views give equal resources."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ambient.waypoint import tunnel
from ambient.waypoint.asking import pools
from ambient.waypoint.closed import NOTHING, Closed, closed_table
from ambient.waypoint.exports import collectors
from ambient.waypoint.front import Destination, Front, FrontPort, Protocol, Subset, View
from ambient.waypoint.rbac import http_filters, is_layer_4, tunnel_filters
from ambient.waypoint.rivals import rightful
from ambient.waypoint.service import cluster, endpoints, inner_cluster, kinds, listener, route_table
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE, Message
from ambient.xds.server import Order

ENVOY_TYPES: Final = (CLUSTER_TYPE, ENDPOINT_TYPE, SECRET_TYPE, LISTENER_TYPE, ROUTE_TYPE)
ENVOY_ORDER: Final = Order(
    ENVOY_TYPES,
    put_after={LISTENER_TYPE: (CLUSTER_TYPE, ENDPOINT_TYPE), ROUTE_TYPE: (CLUSTER_TYPE, ENDPOINT_TYPE)},
    removed_after={
        CLUSTER_TYPE: (LISTENER_TYPE, ROUTE_TYPE),
        ENDPOINT_TYPE: (CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE),
        SECRET_TYPE: (CLUSTER_TYPE, LISTENER_TYPE),
        LISTENER_TYPE: (ROUTE_TYPE,),
    },
    last=frozenset({tunnel.CONNECT_ROUTES}),
    blames=False,
    # A changed cluster is warmed anew, and Envoy, which says nothing of clusters until it is, does not ask again.
    renewed_by={CLUSTER_TYPE: ENDPOINT_TYPE},
)
"""What is new is complete before a CONNECT or a route leads to it, and what goes is led to by nothing any more."""

Named = tuple[str, str, Message]
"""Type URL, name, content."""


class Made:
    """What was made of each port, so that a change of one costs what one costs."""

    def __init__(self) -> None:
        self._of = View("", "", ())
        self._ports: dict[tuple[str, int, bool], _MadePort] = {}
        self._used: set[tuple[str, int, bool]] = set()
        self._asked: list[object] = []
        self._table: Message = {}

    def start(self, view: View) -> None:
        """Before the ports of a view are asked for."""
        general = replace(view, fronts=(), beyond=(), asked=())
        if general != self._of:
            self._of, self._ports = general, {}
        self._ports = {key: self._ports[key] for key in self._used & self._ports.keys()}
        self._used = set()

    def port(self, view: View, front: Front, port: FrontPort, *, shut: bool) -> _MadePort:
        key = (f"{front.namespace}/{front.hostname}", port.number, shut)
        self._used.add(key)
        found = self._ports.get(key)
        if found is None or (found.front is not front and found.front != front):
            filters = None if shut else tunnel_filters(view, front, port)
            found = _MadePort(front, tuple(port_resources(view, front, port, shut=shut)), filters)
            self._ports[key] = found
        return found

    def table(self, rows: list[tuple[Front, int, Message | None]], unlisted: Collection[str]) -> Message:
        """The table of CONNECT routes."""
        names = ((one.namespace, one.hostname, one.addresses, one.rank, port, filters) for one, port, filters in rows)
        asked: list[object] = [sorted(unlisted), *names]
        if asked != self._asked:
            self._asked, self._table = asked, tunnel.connect_routes(rows, frozenset(unlisted))
        return self._table


@dataclass(frozen=True, slots=True)
class _MadePort:
    """`filters`: what a CONNECT to it has to pass, None where it is shut."""

    front: Front
    resources: tuple[Named, ...]
    filters: Message | None


def resources(view: View, closed: Closed = NOTHING, made: Made | None = None) -> Iterator[Named]:
    """All of them; each name once per type. `made`: those of before, to be kept where nothing has changed."""
    made = made or Made()
    made.start(view)
    yield LISTENER_TYPE, tunnel.TERMINATE, tunnel.terminate(view)
    yield LISTENER_TYPE, tunnel.ORIGINATE, tunnel.originate()
    yield CLUSTER_TYPE, tunnel.ORIGINATE, tunnel.originate_cluster(view)
    yield from ((CLUSTER_TYPE, one["name"], one) for one in collectors(view.exports))
    table: list[tuple[Front, int, Message | None]] = []
    fronts = rightful(view.fronts, view.beyond)
    for front in fronts:
        for port in front.ports:
            name = tunnel.inner(front, port.number)
            shut = name in closed.shut
            one = made.port(view, front, port, shut=shut)
            yield from one.resources
            table.append((front, port.number, one.filters))
    yield from _led_to(view, fronts)
    for asked, pool_port, kind in pools(view.asked, fronts):
        yield from _pool(asked, pool_port, kind)
    yield ROUTE_TYPE, tunnel.CONNECT_ROUTES, made.table(table, closed.unlisted)


def port_resources(view: View, front: Front, port: FrontPort, *, shut: bool = False) -> Iterator[Named]:
    """Those of one port of one service. `shut`: it lets nothing through."""
    inner = tunnel.inner(front, port.number)
    used = served(front, port)
    yield CLUSTER_TYPE, inner, inner_cluster(front, port.number)
    yield (
        LISTENER_TYPE,
        inner,
        listener(front.bare if shut else front, port, used, xfcc=view.xfcc, exports=view.exports),
    )
    for kind in used:
        yield from _pool(front, port, kind)
    if "http" in used:
        table = closed_table(inner) if shut else route_table(front, port.number, http_filters(view, front, port))
        yield ROUTE_TYPE, table["name"], table


def _led_to(view: View, fronts: Sequence[Front]) -> Iterator[Named]:
    """What routes lead to and is not there yet: other services, and subsets."""
    known = {one.hostname: one for one in (*rightful(view.beyond, view.fronts), *fronts)}
    made = {(one.hostname, port.number, kind, "") for one in fronts for port in one.ports for kind in served(one, port)}
    for kind, one in _destinations(fronts):
        front, asked = known.get(one.hostname), (one.hostname, one.port, kind, one.subset)
        port = next((port for port in front.ports if port.number == one.port), None) if front is not None else None
        if front is None or port is None or asked in made:
            continue
        subset = next((found for found in port.subsets if found.name == one.subset), None)
        if subset is not None or not one.subset:
            made.add(asked)
            yield from _pool(front, port, kind, subset)


def _destinations(fronts: Iterable[Front]) -> Iterator[tuple[str, Destination]]:
    """How, and where to."""
    for front in fronts:
        for route in front.routes:
            yield from (("http", one) for one in (*route.destinations, *route.mirrors))
        for stream in front.streams:
            yield from (("tcp", one) for one in stream.destinations)


def _pool(front: Front, port: FrontPort, kind: str, subset: Subset | None = None) -> Iterator[Named]:
    made = cluster(front, port, kind, subset)
    yield CLUSTER_TYPE, made["name"], made
    yield ENDPOINT_TYPE, made["name"], endpoints(front, port, kind, subset)


def served(front: Front, port: FrontPort) -> tuple[str, ...]:
    """How the port may be used. Where nobody says what is spoken and a policy asks for HTTP, only HTTP is let through:
    of anything else it cannot be told before the first byte of an answer whether the policy lets it. The same where
    tokens are looked at: who says nothing at first would have his token carried unread."""
    if port.protocol is Protocol.AUTO and (front.tokens or not all(is_layer_4(policy) for policy in front.policies)):
        return ("http",)
    return kinds(port.protocol)
