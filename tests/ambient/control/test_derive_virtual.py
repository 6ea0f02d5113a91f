"""VirtualServices at a waypoint: which is in force, where it leads, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.derive_front import Fronts
from ambient.kube.networking import Gateway
from ambient.kube.objects import Records
from ambient.kube.traffic_values import HashBy
from ambient.waypoint.front import Destination, Front, Stream, View
from tests.ambient.control.test_derive_routes import HTTP, RULES, TO_2, WEB2
from tests.support.builders import raw
from tests.support.waypoint_records import derived, pod, policy, scene, service

V1 = {
    **pod("web-4", "10.1.0.4"),
    "metadata": {**pod("web-4", "10.1.0.4")["metadata"], "labels": {"app": "web", "v": "1"}},
}


def istio(kind: str, name: str, spec: dict[str, Any], home: str = "shop", created: str = "") -> dict[str, Any]:
    made = {**raw(kind, name, spec, namespace=home), "apiVersion": "networking.istio.io/v1"}
    if created:
        made["metadata"]["creationTimestamp"] = created
    return made


def virtual(name: str = "v", *, home: str = "shop", created: str = "", **spec: Any) -> dict[str, Any]:
    return istio("VirtualService", name, {"hosts": ["web"], **spec}, home, created)


def leads(*destinations: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"route": [{"destination": one, "weight": 1} for one in destinations]}]


SUBSETS = {"host": "web", "subsets": [{"name": "v1", "labels": {"v": "1"}}, {"name": "all"}]}
RULE = istio("DestinationRule", "r", SUBSETS)


def look(found: Records) -> tuple[Front, View, dict[str, tuple[str, str]]]:
    """The service web, the view, and the condition of each VirtualService: (status, reason)."""
    fronts, told = Fronts(("cluster.local",), "istio-system"), derived(found)
    fronts.update(found, told)
    record = found.find(Gateway, "shop", "waypoint")
    assert record is not None
    view = fronts.view(told.waypoints["shop/waypoint"], record)
    said = {
        key: (conditions[-1].status, conditions[-1].reason)
        for key, conditions in fronts.route_conditions().items()
        if key.startswith("VirtualService/")
    }
    (web,) = [one for one in view.fronts if one.hostname.startswith("web.")]
    return web, view, said


def destinations(found: Records) -> list[Destination]:
    return [one for route in look(found)[0].routes if route.port == 80 for one in route.destinations]


def test_it_leads_to_hosts_and_subsets_whose_endpoints_are_there() -> None:
    found = scene(WEB2, V1, RULE, virtual(http=leads({"host": "web", "subset": "v1"}, {"host": "web-v2"})))
    web, view, said = look(found)
    assert destinations(found) == [
        Destination("web.shop.svc.cluster.local", 80, subset="v1"),
        Destination("web-v2.shop.svc.cluster.local", 80),
    ]
    v1, everything = web.ports[0].subsets
    assert [str(one.address) for one in v1.backends] == ["10.1.0.4"]
    assert everything.backends == web.ports[0].backends
    assert "web-v2.shop.svc.cluster.local" in {one.hostname for one in view.beyond}
    assert said == {"VirtualService/shop/v": ("True", "Accepted")}


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ({"host": "absent"}, "BackendNotFound"),
        ({"host": "web-v2", "port": {"number": 81}}, "BackendNotFound"),
        ({"host": "web", "subset": "v3"}, "BackendNotFound"),
        ({"host": "web-v2", "subset": "v1"}, "BackendNotFound"),
        ({"host": "absent.shop.svc.cluster.local"}, "BackendNotFound"),
    ],
)
def test_what_leads_nowhere_gets_nothing_and_is_told(destination: dict[str, Any], reason: str) -> None:
    found = scene(WEB2, RULE, virtual(http=leads(destination)))
    assert destinations(found) == [Destination("", 0)]
    assert look(found)[2]["VirtualService/shop/v"] == ("False", reason)


def test_it_leads_to_no_service_that_lets_less_through() -> None:
    closed = policy("p", "DENY", {"kind": "Service", "name": "web-v2"}, rules=RULES)
    found = scene(WEB2, closed, virtual(http=leads({"host": "web-v2"})))
    assert destinations(found) == [Destination("", 0)]
    assert look(found)[2]["VirtualService/shop/v"] == ("False", "RefNotPermitted")


def test_a_route_of_the_gateway_api_goes_before_it_on_its_port() -> None:
    found = scene(WEB2, TO_2, virtual(http=leads({"host": "web"})))
    assert destinations(found) == [Destination("web-v2.shop.svc.cluster.local", 80)]
    assert look(found)[2]["VirtualService/shop/v"] == ("False", "Conflicted")


def test_the_more_exact_then_the_older_one_counts_and_the_other_is_told() -> None:
    old = virtual("z", created="2025-01-01T00:00:00Z", http=leads({"host": "web-v2"}))
    new = virtual("a", created="2026-01-01T00:00:00Z", http=leads({"host": "web"}))
    _, _, said = look(scene(WEB2, old, new))
    assert said == {"VirtualService/shop/z": ("True", "Accepted"), "VirtualService/shop/a": ("False", "Conflicted")}
    wide = virtual("wide", created="2025-01-01T00:00:00Z", hosts=["*.local"], http=leads({"host": "web-v2"}))
    assert destinations(scene(WEB2, wide, new)) == [Destination("web.shop.svc.cluster.local", 80)]


@pytest.mark.parametrize(
    "other",
    [
        virtual(gateways=["ingress"], http=leads({"host": "web-v2"})),
        virtual(home="elsewhere", hosts=["web.shop.svc.cluster.local"], http=leads({"host": "web"})),
        virtual(hosts=["other"], http=leads({"host": "web-v2"})),
        virtual(exportTo=["elsewhere"], http=leads({"host": "web-v2"})),
    ],
    ids=["for gateways", "of a third namespace", "for another host", "not for us"],
)
def test_one_that_is_not_for_this_service_does_nothing(other: dict[str, Any]) -> None:
    web, _, said = look(scene(WEB2, other))
    assert (web.routes, said) == ((), {})


def test_matches_by_port_are_on_that_port_and_in_the_order_written() -> None:
    http = [
        {"match": [{"port": 80, "uri": {"prefix": "/a"}}, {"port": 81}], **leads({"host": "web"})[0]},
        {"directResponse": {"status": 404}},
    ]
    web, _, _ = look(scene(virtual(http=http)))
    assert [(route.port, route.match.path.value, route.name) for route in web.routes] == [
        (80, "/a", "shop/v/0"),
        (80, "/", "shop/v/1"),
    ]


def test_connections_are_carried_by_port_and_by_name_each_once() -> None:
    raw_port = {"name": "tcp-raw", "port": 9000}
    other = service("web-v2", HTTP, raw_port, ip="10.96.0.7")
    route = leads({"host": "web-v2"})[0]
    tls = [{"match": [{"sniHosts": ["a.b", "c.d"]}], **route}, {"match": [{"sniHosts": ["a.b"]}], **route}]
    web, view, said = look(scene(other, virtual(tls=tls, tcp=[{"match": [{"port": 9000}], **route}, route])))
    there = (Destination("web-v2.shop.svc.cluster.local", 9000),)
    assert web.streams == (Stream(9000, there, ("a.b", "c.d")), Stream(9000, there))
    assert [port.number for one in view.beyond for port in one.ports] == [9000]
    assert said == {"VirtualService/shop/v": ("True", "Accepted")}


def test_what_a_destination_rule_hashes_by_stands_at_the_destination() -> None:
    traffic = {"loadBalancer": {"consistentHash": {"httpHeaderName": "x"}}}
    ring = istio("DestinationRule", "r", {"host": "web", "trafficPolicy": traffic})
    (found,) = destinations(scene(ring, virtual(http=leads({"host": "web"}))))
    assert found.hash_by == HashBy("header", "x")
