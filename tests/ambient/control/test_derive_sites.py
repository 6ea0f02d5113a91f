"""What is behind a listener costs as much as there is of it: nobody looks at all routes for each of their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ambient.control.derive_attached import Attached, Face
from ambient.control.derive_backends import Unresolved
from ambient.control.derive_sites import MOST_ADDED, Behind, behind
from ambient.control.gateway_pools import Pools
from ambient.kube.objects import Gateway, parse_object
from ambient.kube.routing import AttachedRoute, BackendRef
from ambient.model.workload import Service
from ambient.xds.steps import finish
from tests.support.gateway_records import HTTP, TO_WEB, ingress, route, statuses, tls_route, told


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


def led(one: Face, pools: Pools) -> Behind:
    return finish(behind(one, [one], pools, Counter()))


def hosts(number: int) -> list[str]:
    return [f"h{one}.example.com" for one in range(number)]


def test_twice_as_many_routes_are_twice_the_work() -> None:
    def work(number: int) -> tuple[int, int]:
        one, pools = face(route("any"), *(route(host, hosts=(host,)) for host in hosts(number))), Counted()
        Names.looks = 0
        assert len(led(one, pools).sites) == number + 1
        return Names.looks, pools.asked

    # Each route's names are looked at once, and its backends looked for once, under however many names it is.
    assert (work(20), work(40)) == ((21, 21), (41, 41))


def test_twice_as_many_server_names_are_twice_the_work() -> None:
    def work(number: int) -> int:
        passed = {"name": "p", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}
        one = face(*(tls_route(host, host) for host in hosts(number)), listener=passed)
        Names.looks = 0
        assert len(led(one, Counted()).destinations) == number
        return Names.looks

    assert (work(20), work(40)) == (20, 40)


def test_a_route_is_the_same_object_under_all_of_its_names() -> None:
    one = face(route("any", {"matches": [{}, {}]}), *(route(host, hosts=(host,)) for host in hosts(3)))
    found = {site.hostname: site.routes for site in led(one, Counted()).sites}
    assert [len(found[name]) for name in (*hosts(3), "*")] == [2, 2, 2, 1]
    assert all(found[host][-1] is found["*"][0] for host in hosts(3))


def test_what_a_namespaces_routes_add_to_host_names_of_others_has_an_end() -> None:
    def wide(name: str, matches: int, created: str, namespace: str = "shop") -> dict[str, Any]:
        paths = [{"path": {"type": "Exact", "value": f"/{one}"}} for one in range(matches)]
        made = route(name, {"matches": paths, **TO_WEB}, namespace=namespace)
        made["metadata"]["creationTimestamp"] = created
        return made

    number = MOST_ADDED // 64
    found = told(
        ingress({**HTTP, "allowedRoutes": {"namespaces": {"from": "All"}}}),
        wide("new", 2, "2025-01-03T00:00:00Z"),
        wide("old", 63, "2025-01-01T00:00:00Z"),
        wide("small", 1, "2025-01-04T00:00:00Z"),
        wide("theirs", 2, "2025-01-05T00:00:00Z", namespace="other"),
        *(route(host, hosts=(host,)) for host in hosts(number)),
    )
    (door,) = found.view.doors
    names = {one.hostname: Counter(each.name.split("/")[1] for each in one.routes) for one in door.sites}
    assert names.pop("*") == {"old": 63, "new": 2, "small": 1, "theirs": 2}
    assert all(one == {host: 1, "old": 63, "small": 1, "theirs": 2} for host, one in names.items())
    assert len(names) == number
    said = {key: statuses(one[0].conditions) for key, one in found.parents.items()}
    assert [key for key, one in said.items() if "PartiallyInvalid" in one] == ["HTTPRoute/shop/new"]
    assert said["HTTPRoute/shop/new"]["Accepted"][0] == "True"
