"""HTTPRoutes on services: which apply, where their backends lead, that none loosens a policy, and what is said."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.derive_front import Fronts
from ambient.kube.networking import Gateway
from ambient.kube.objects import Records
from ambient.waypoint.front import Destination, View
from tests.support.builders import raw
from tests.support.waypoint_records import TARGET, derived, policy, scene, service, tokens

HTTP = {"name": "http", "port": 80, "targetPort": 8080}
WEB2 = service("web-v2", HTTP, ip="10.96.0.7")
BOTH = (TARGET, {"kind": "Service", "name": "web-v2"})
RULES = [{"to": [{"operation": {"methods": ["GET"]}}]}]


def route(*backends: dict[str, Any], home: str = "shop", **parent: Any) -> dict[str, Any]:
    ref = {"group": "", "kind": "Service", "name": "web", **parent}
    spec = {"parentRefs": [ref], "rules": [{"backendRefs": [{"port": 80, **one} for one in backends]}]}
    return {**raw("HTTPRoute", "r", spec, namespace=home), "apiVersion": "gateway.networking.k8s.io/v1"}


TO_2 = route({"name": "web-v2"})


def look(found: Records) -> tuple[View, dict[str, dict[str, tuple[str, str]]]]:
    """The view, and the conditions of each route: type -> (status, reason)."""
    fronts, told = Fronts(("cluster.local",), "istio-system"), derived(found)
    fronts.update(found, told)
    record = found.find(Gateway, "shop", "waypoint")
    assert record is not None
    view = fronts.view(told.waypoints["shop/waypoint"], record)
    said = fronts.route_conditions().items()
    return view, {key: {one.type: (one.status, one.reason) for one in conditions} for key, conditions in said}


def destinations(found: Records) -> list[Destination]:
    view, _ = look(found)
    (front,) = [one for one in view.fronts if one.hostname.startswith("web.")]
    return [one for each in front.routes if each.port == 80 for one in each.destinations]


def test_a_route_leads_to_another_service_whose_endpoints_are_there() -> None:
    found = scene(WEB2, route({"name": "web-v2", "weight": 9}, {"name": "web"}))
    assert destinations(found) == [
        Destination("web-v2.shop.svc.cluster.local", 80, 9),
        Destination("web.shop.svc.cluster.local", 80),
    ]
    view, said = look(found)
    assert {one.hostname for one in view.beyond} == {f"{name}.shop.svc.cluster.local" for name in ("web", "web-v2")}
    wanted = {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
    assert said == {"HTTPRoute/shop/r": wanted}


def test_ports_that_routes_of_its_own_namespace_are_on_carry_nothing_unread() -> None:
    bare = service("web", {"name": "http", "port": 80}, {"port": 7000, "name": "x"}, {"port": 7001, "name": "y"})
    for port, read in ((7000, {7000}), (None, {80, 7000, 7001})):
        parent = {} if port is None else {"port": port}
        found = scene(bare, route({"name": "web"}, **parent), without=("web",))
        assert [one.read for one in look(found)[0].fronts] == [read]
    assert [one.read for one in look(scene(bare, without=("web",)))[0].fronts] == [set()]


@pytest.mark.parametrize("host", ["a.example.com", "z.example.com"])
def test_a_service_entry_of_the_same_name_does_not_take_the_place_of_a_service(host: str) -> None:
    spec = {"hosts": [host], "ports": [{"number": 80, "name": "http"}], "resolution": "DNS"}
    entries = [
        {**raw("ServiceEntry", name, spec, namespace="shop"), "apiVersion": "networking.istio.io/v1"}
        for name in ("web", "web-v2")
    ]
    assert destinations(scene(WEB2, TO_2, *entries)) == [Destination("web-v2.shop.svc.cluster.local", 80)]


def test_a_route_on_one_port_leaves_the_others() -> None:
    view, _ = look(scene(WEB2, route({"name": "web-v2"}, port=9000)))
    assert [{one.port for one in front.routes} for front in view.fronts] == [set(), {9000}]


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ({"name": "absent"}, "BackendNotFound"),
        ({"name": "web-v2", "port": 81}, "BackendNotFound"),
        ({"name": "web-v2", "namespace": "other"}, "RefNotPermitted"),
        ({"name": "web-v2", "group": "example.com", "kind": "Pool"}, "InvalidKind"),
    ],
)
def test_a_backend_that_is_not_there_gets_nothing_and_is_told(backend: dict[str, Any], reason: str) -> None:
    found = scene(WEB2, route(backend))
    assert destinations(found) == [Destination("", 0)]
    assert look(found)[1]["HTTPRoute/shop/r"]["ResolvedRefs"] == ("False", reason)


@pytest.mark.parametrize("parent", [{"name": "absent"}, {"port": 81}, {"namespace": "other"}])
def test_a_parent_that_is_not_there_is_told(parent: dict[str, Any]) -> None:
    found = scene(WEB2, route({"name": "web-v2"}, **parent))
    assert destinations(found) == []
    assert look(found)[1]["HTTPRoute/shop/r"]["Accepted"] == ("False", "NoMatchingParent")


def test_a_route_of_another_namespace_and_one_of_a_gateway_do_nothing() -> None:
    ingress = route({"name": "web-v2"}, group="gateway.networking.k8s.io", kind="Gateway")
    assert destinations(scene(WEB2, route({"name": "web-v2"}, home="other"))) == []
    assert look(scene(WEB2, ingress))[1] == {}


@pytest.mark.parametrize(
    ("policies", "leads"),
    [
        ((), True),
        ((policy("p", "DENY", TARGET, rules=RULES),), True),
        ((policy("p", "DENY", *BOTH, rules=RULES),), True),
        ((policy("p", "DENY", BOTH[1], rules=RULES),), False),
        ((policy("p", "ALLOW", BOTH[1], rules=RULES),), False),
        ((policy("p", "ALLOW", *BOTH, rules=RULES),), True),
        ((policy("p", "ALLOW", *BOTH, rules=RULES), policy("more", "ALLOW", TARGET, rules=[{}])), False),
        ((policy("p", "CUSTOM", BOTH[1], rules=RULES, provider={"name": "x"}),), False),
        ((policy("p", "AUDIT", BOTH[1], rules=RULES),), True),
        ((tokens("t", BOTH[1]),), False),
        ((tokens("t", *BOTH),), True),
        ((tokens("t", TARGET),), True),
        ((tokens("t", TARGET), policy("p", "ALLOW", *BOTH, rules=RULES)), False),
        ((policy("p", "DENY", *BOTH, rules=[{"to": [{"operation": {"ports": ["80"]}}]}]),), False),
    ],
)
def test_a_route_leads_to_no_service_that_lets_less_through(policies: tuple[dict[str, Any], ...], leads: bool) -> None:
    found = scene(WEB2, TO_2, *policies)
    assert bool(destinations(found)[0].hostname) is leads
    wanted = ("True", "ResolvedRefs") if leads else ("False", "RefNotPermitted")
    assert look(found)[1]["HTTPRoute/shop/r"]["ResolvedRefs"] == wanted
