"""Everything that one waypoint is told: from its view to Envoy's resources. Pure: equal views give equal resources."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ambient.waypoint import tunnel
from ambient.waypoint.asking import pools
from ambient.waypoint.closed import NOTHING, Closed, closed_table
from ambient.waypoint.direct import direct_cluster, faces, handed_on
from ambient.waypoint.exports import collectors
from ambient.waypoint.front import Destination, Direct, Front, FrontPort, Subset, View
from ambient.waypoint.limiter import limiter
from ambient.waypoint.origination import asked_for, originating
from ambient.waypoint.rbac import http_filters, tunnel_filters
from ambient.waypoint.rivals import rightful
from ambient.waypoint.service import cluster, endpoints, inner_cluster, listener, route_table, served
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE, Message, Named
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
    asks=tunnel.table_of,
    # A changed cluster is warmed anew, and Envoy, which says nothing of clusters until it is, does not ask again.
    renewed_by={CLUSTER_TYPE: ENDPOINT_TYPE},
)
"""What is new is complete before a CONNECT or a route leads to it, and what goes is led to by nothing any more."""

_POOL: Final = (CLUSTER_TYPE, ENDPOINT_TYPE)
_PortKey = tuple[str, int, bool]
"""Service ("namespace/hostname"), port, whether it is shut."""


class Made:
    """What was made of each port, so that a change of one costs what one costs."""

    def __init__(self) -> None:
        self._of = View("", "", ())
        self._ports: dict[_PortKey, _MadePort] = {}
        self._asked: list[object] = []
        self._table: Message = {}

    def start(self, view: View) -> None:
        """Before the ports of a view are asked for."""
        general = replace(view, fronts=(), beyond=(), asked=(), limiter=None, direct=())
        if general != self._of:
            self._of, self._ports = general, {}

    def port(self, view: View, front: Front, port: FrontPort, *, shut: bool, direct: Direct | None = None) -> _MadePort:
        """`direct`: what `front` stands for; which workloads that are is no matter."""
        key = _port_key(front, port, shut=shut, direct=direct)
        found = self._ports.get(key)
        if found is None or (found.front is not front and found.front != front):
            filters = None if shut else tunnel_filters(view, front, port)
            row = tunnel.Row(front, port.number, tunnel.entrance(front, port.number, served(front, port)), filters)
            made = tuple(port_resources(view, front, port, shut=shut, direct=direct))
            found = self._ports[key] = _MadePort(front, made, row)
        return found

    def keep(self, keys: Collection[_PortKey]) -> None:
        """After the last of them: what others are made of is forgotten."""
        self._ports = {key: one for key, one in self._ports.items() if key in keys}

    def table(self, rows: list[tunnel.Row], unlisted: Collection[str]) -> Message:
        """The table of CONNECT routes."""
        asked: list[object] = [sorted(unlisted)]
        for row in rows:
            front = row.front
            asked.append((front.namespace, front.hostname, front.addresses, front.rank))
            asked.append((row.port, row.entrance, row.filters, row.names))
        if asked != self._asked:
            self._asked, self._table = asked, tunnel.connect_routes(rows, frozenset(unlisted))
        return self._table


@dataclass(frozen=True, slots=True)
class _MadePort:
    front: Front
    resources: tuple[Named, ...]
    row: tunnel.Row


def _port_key(front: Front, port: FrontPort, *, shut: bool, direct: Direct | None = None) -> _PortKey:
    return f"{direct.identity if direct else front.namespace}/{front.hostname}", port.number, shut


def resources(view: View, closed: Closed = NOTHING, made: Made | None = None) -> Iterator[Named]:
    """All of them; each name once per type. `made`: those of before, to be kept where nothing has changed; several may
    be at it by turns."""
    secrets: list[Named] = []
    asked: set[str] = set()
    for one in _resources(view, closed, made or Made()):
        url, name, content = one
        if url == SECRET_TYPE:
            secrets.append(one)
        elif url not in _POOL or name not in closed.gone:
            if url == CLUSTER_TYPE:
                asked.update(asked_for(content))
            yield one
    # What nobody asks for would be waited for without end.
    yield from (one for one in secrets if one[1] in asked)


def _resources(view: View, closed: Closed, made: Made) -> Iterator[Named]:
    made.start(view)
    yield LISTENER_TYPE, tunnel.TERMINATE, tunnel.terminate(view)
    yield LISTENER_TYPE, tunnel.ORIGINATE, tunnel.originate()
    yield CLUSTER_TYPE, tunnel.ORIGINATE, tunnel.originate_cluster(view)
    yield from limiter(view.limiter)
    own = (one.exports for one in view.fronts if one.exports is not None)
    yield from ((CLUSTER_TYPE, one["name"], one) for one in collectors(view.exports, *own))
    table: dict[_PortKey, tunnel.Row] = {}
    fronts = rightful(view.fronts, view.beyond)
    for front in fronts:
        for port in front.ports:
            name = tunnel.inner(front, port.number)
            shut = name in closed.shut
            one = made.port(view, front, port, shut=shut)
            yield from one.resources
            table[_port_key(front, port, shut=shut)] = one.row
    asking = list(fronts)
    for direct in view.direct:
        for face in faces(direct):
            shut = tunnel.inner(face.front, face.port.number) in closed.shut
            one = made.port(view, face.front, face.port, shut=shut, direct=direct)
            yield from one.resources
            table[_port_key(face.front, face.port, shut=shut, direct=direct)] = replace(one.row, names=face.names)
            asking.append(face.front)
    yield from _led_to(view, fronts)
    yield from originating((*fronts, *view.beyond, *view.asked, *filter(None, (view.limiter,))))
    for asked, pool_port, kind in pools(view.asked, asking):
        yield from _pool(view, asked, pool_port, kind)
    made.keep(table)
    yield ROUTE_TYPE, tunnel.CONNECT_ROUTES, made.table(list(table.values()), closed.unlisted)


def port_resources(
    view: View, front: Front, port: FrontPort, *, shut: bool = False, direct: Direct | None = None
) -> Iterator[Named]:
    """Those of one port of one service, or of the workloads that `front` stands for. `shut`: it lets nothing
    through."""
    inner = tunnel.inner(front, port.number)
    used = served(front, port)
    name = tunnel.entrance(front, port.number, used)
    yield CLUSTER_TYPE, name, inner_cluster(front, port.number, used)
    seen = front.bare if shut else front
    taking = listener(seen, port, used, xfcc=view.xfcc, exports=view.exports)
    yield LISTENER_TYPE, name, taking if direct is None else handed_on(direct, taking)
    for kind in used:
        if direct is None:
            yield from _pool(view, front, port, kind)
        else:
            own = direct_cluster(direct, front, port, kind)
            yield CLUSTER_TYPE, own["name"], own
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
            yield from _pool(view, front, port, kind, subset)


def _destinations(fronts: Iterable[Front]) -> Iterator[tuple[str, Destination]]:
    """How, and where to."""
    for front in fronts:
        for route in front.routes:
            yield from (("http", one) for one in (*route.destinations, *route.mirrors))
        for stream in front.streams:
            yield from (("tcp", one) for one in stream.destinations)


def _pool(view: View, front: Front, port: FrontPort, kind: str, subset: Subset | None = None) -> Iterator[Named]:
    made = cluster(front, port, kind, subset)
    yield CLUSTER_TYPE, made["name"], made
    if made.get("type") == "EDS":
        yield ENDPOINT_TYPE, made["name"], endpoints(front, port, kind, subset, view.place)
