"""What is behind a listener costs as much as there is of it: nobody looks at all routes for each of their names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ambient.control.derive_attached import Attached, Face
from ambient.control.derive_backends import Unresolved
from ambient.control.derive_sites import carried, sites
from ambient.control.gateway_pools import Pools
from ambient.kube.objects import Gateway, parse_object
from ambient.kube.routing import AttachedRoute, BackendRef
from ambient.model.workload import Service
from tests.support.gateway_records import HTTP, ingress, route, tls_route


class Names(tuple[str, ...]):
    """Host names of a route; `looks`: how often anybody has looked at such."""

    __slots__ = ()
    looks = 0

    def __iter__(self) -> Iterator[str]:
        Names.looks += 1
        return super().__iter__()

    def __contains__(self, name: object) -> bool:
        Names.looks += 1
        return super().__contains__(name)


class Counted(Pools):
    """Services that there are none of; `asked`: how often one was looked for."""

    def __init__(self) -> None:
        self.asked = 0

    def resolve(self, route: AttachedRoute, ref: BackendRef) -> Service:
        self.asked += 1
        raise Unresolved("BackendNotFound", "there are none")


def face(*objects: dict[str, Any], listener: dict[str, Any] = HTTP) -> Face:
    """A listener with these routes, each for its own names or any."""
    gateway = parse_object(ingress(listener), "x")
    assert isinstance(gateway, Gateway)
    found = Face(gateway.listeners[0])
    for one in objects:
        record = parse_object(one, "x")
        assert isinstance(record, AttachedRoute)
        found.attached.append(Attached(record, Names(one["spec"]["hostnames"] or ("*",))))
    return found


def hosts(number: int) -> list[str]:
    return [f"h{one}.example.com" for one in range(number)]


def test_twice_as_many_routes_are_twice_the_work() -> None:
    def work(number: int) -> tuple[int, int]:
        one, pools = face(route("any"), *(route(host, hosts=(host,)) for host in hosts(number))), Counted()
        Names.looks = 0
        assert len(list(sites(one, [one], pools))) == number + 1
        return Names.looks, pools.asked

    # Each route's names are looked at once, and its backends looked for once, under however many names it is.
    assert (work(20), work(40)) == ((21, 21), (41, 41))


def test_twice_as_many_server_names_are_twice_the_work() -> None:
    def work(number: int) -> int:
        passed = {"name": "p", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}
        one = face(*(tls_route(host, host) for host in hosts(number)), listener=passed)
        Names.looks = 0
        assert len(list(carried(one, [one], Counted()))) == number
        return Names.looks

    assert (work(20), work(40)) == (20, 40)


def test_a_route_is_the_same_object_under_all_of_its_names() -> None:
    one = face(route("any", {"matches": [{}, {}]}), *(route(host, hosts=(host,)) for host in hosts(3)))
    found = {site.hostname: site.routes for site in sites(one, [one], Counted())}
    assert [len(found[name]) for name in (*hosts(3), "*")] == [2, 2, 2, 1]
    assert all(found[host][-1] is found["*"][0] for host in hosts(3))
