"""Proxies of one waypoint on nodes in two zones: each is told of what is near to it first."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.ca.token import Caller
from ambient.control.places import MOST
from ambient.errors import Unavailable
from ambient.kube.objects import Records
from ambient.waypoint.typed import ENDPOINT_TYPE
from ambient.xds.messages import DeltaRequest
from ambient.xds.server import DeltaStream
from tests.ambient.control.test_waypoints import waypoints
from tests.support.builders import raw
from tests.support.waypoint_records import derived, pod, scene, service

PORT = {"name": "http", "port": 80, "targetPort": 8080}
POOL = "inbound-vip|80|http|web.shop.svc.cluster.local"


def node(name: str, zone: str) -> dict[str, Any]:
    labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": zone}
    return raw("Node", name, {}, labels=labels)


def on(name: str, ip: str, where: str) -> dict[str, Any]:
    made = pod(name, ip)
    made["spec"]["nodeName"] = where
    return made


def world(distribution: str = "PreferClose") -> Records:
    web = service("web", PORT)
    if distribution:
        web["spec"]["trafficDistribution"] = distribution
    pods = (on("web-1", "10.1.0.1", "n1"), on("web-2", "10.1.0.2", "n2"))
    return scene(web, node("n1", "a"), node("n2", "b"), *pods, without=("web", "web-1", "web-2", "web-3"))


def told(stream: DeltaStream) -> Any:
    stream.receive(DeltaRequest(type_url=ENDPOINT_TYPE, subscribe=(POOL,)))
    found = b""
    while (response := stream.pull()) is not None:
        found += b"".join(one.body for one in response.resources)
        stream.receive(DeltaRequest(type_url=response.type_url, nonce=response.nonce))
    return found


def caller(where: str) -> Caller:
    return Caller(where, "shop", "waypoint", where)


def first_of(body: bytes) -> str:
    return "web-1" if body.index(b"10.1.0.1:8080") < body.index(b"10.1.0.2:8080") else "web-2"


def test_each_is_told_of_its_own_zone_first_and_of_all() -> None:
    made = waypoints(world())
    assert [first_of(told(made.open(caller(where), "waypoint"))) for where in ("n1", "n2")] == ["web-1", "web-2"]


def test_where_nobody_asks_for_it_all_are_told_the_same() -> None:
    made = waypoints(world(""))
    one, two = (told(made.open(caller(where), "waypoint")) for where in ("n1", "n2"))
    assert one == two


def test_who_is_connected_when_it_begins_to_count_is_asked_to_come_again() -> None:
    made = waypoints(world(""))
    stream = made.open(caller("n2"), "waypoint")
    told(stream)
    again = world()
    assert made.update(again, derived(again))
    with pytest.raises(Unavailable, match="where it is counts now"):
        stream.pull()
    assert first_of(told(made.open(caller("n2"), "waypoint"))) == "web-2"


def test_an_endpoint_that_goes_is_told_to_those_who_are_told_by_their_place() -> None:
    made = waypoints(world())
    stream = made.open(caller("n1"), "waypoint")
    told(stream)
    left = scene(
        *(service("web", PORT),), node("n1", "a"), node("n2", "b"), on("web-2", "10.1.0.2", "n2"),
        without=("web", "web-1", "web-2", "web-3"),
    )  # fmt: skip
    assert made.update(left, derived(left))
    response = stream.pull()
    bodies = b""
    while response is not None:
        bodies += b"".join(one.body for one in response.resources)
        stream.receive(DeltaRequest(type_url=response.type_url, nonce=response.nonce))
        response = stream.pull()
    assert b"10.1.0.2:8080" in bodies
    assert b"10.1.0.1:8080" not in bodies


def test_the_place_of_a_node_without_proxies_is_for_others() -> None:
    made = waypoints(world())

    def open_on(node: str) -> DeltaStream:
        return made.open(Caller(node, "shop", "waypoint", node), "waypoint")

    streams = [open_on(f"n-{one}") for one in range(MOST)]
    beside = open_on("n-0")
    assert first_of(told(open_on("n2"))) == "web-1"
    made.close(streams[0])
    assert first_of(told(open_on("n2"))) == "web-1"
    made.close(beside)
    assert first_of(told(open_on("n2"))) == "web-2"
