"""Routes on services of other namespaces: for their own clients, where the waypoint's owner lets them, and no way past
what is judged."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.derive_front import Fronts
from ambient.control.derive_routes import CONSUMERS
from ambient.kube.networking import Gateway
from ambient.kube.rate_limits import ANNOTATION
from ambient.waypoint.front import Destination, Route
from ambient.waypoint.routes import routes
from tests.support.builders import raw
from tests.support.waypoint_records import TARGET, derived, gateway, policy, scene, service, tokens

HOST = "web.shop.svc.cluster.local"
PORT = 80
TO_WEB = {"name": "web", "namespace": "shop", "port": 80}


def route(*filters: dict[str, Any], home: str = "buyers", path: str = "/", **more: Any) -> dict[str, Any]:
    """To web, from its consumers' namespace, unless told otherwise."""
    rule = {"matches": [{"path": {"value": path}}], "filters": list(filters), "backendRefs": [TO_WEB], **more}
    ref = {"group": "", "kind": "Service", "name": "web", "namespace": "shop", "port": PORT}
    made = raw("HTTPRoute", f"of-{home}", {"parentRefs": [ref], "rules": [rule]}, namespace=home)
    return {**made, "apiVersion": "gateway.networking.k8s.io/v1"}


def edit(name: str) -> dict[str, Any]:
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": name, "value": "x"}]}}


REWRITE = {
    "type": "URLRewrite",
    "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/admin"}},
}


def look(*objects: dict[str, Any], allowed: bool = True) -> tuple[list[Route], dict[str, tuple[str, str]]]:
    """The routes of the port, and what is said of the consumers' route: condition -> (status, reason)."""
    waypoint = gateway()
    waypoint["metadata"]["annotations"] = {CONSUMERS: "true"} if allowed else {}
    found = scene(waypoint, *objects, without=("waypoint",))
    fronts, told = Fronts(("cluster.local",), "istio-system"), derived(found)
    fronts.update(found, told)
    record = found.find(Gateway, "shop", "waypoint")
    assert record is not None
    view = fronts.view(told.waypoints["shop/waypoint"], record)
    (front,) = [one for one in view.fronts if one.hostname == HOST]
    assert routes(front, PORT)
    said = fronts.route_conditions().get("HTTPRoute/buyers/of-buyers", ())
    return [one for one in front.routes if one.port == PORT], {one.type: (one.status, one.reason) for one in said}


def test_a_consumers_route_is_for_clients_of_its_namespace_and_others_ask_the_service() -> None:
    found, said = look(route(path="/a"))
    assert [(one.match.namespace, one.match.path.value) for one in found] == [
        ("buyers", "/a"),
        ("buyers", "/"),
        ("", "/"),
    ]
    assert [one.destinations for one in found] == [(Destination(HOST, PORT),), (), (Destination(HOST, PORT),)]
    assert found[1].rule.answer is not None
    assert found[1].rule.answer.status == 404
    assert said == {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}


def test_it_is_tried_before_the_services_own_which_stays_for_everybody_else() -> None:
    found, _ = look(route(), route(home="shop", path="/long/and/exact"))
    assert [(one.match.namespace, one.match.path.value) for one in found] == [
        ("buyers", "/"), ("buyers", "/"), ("", "/long/and/exact"),
    ]  # fmt: skip


def test_two_namespaces_have_each_their_own() -> None:
    found, _ = look(route(), route(home="sellers", path="/s"))
    assert sorted(one.match.namespace for one in found) == ["", "buyers", "buyers", "sellers", "sellers"]
    assert found[-1].match.namespace == ""


def test_no_route_of_another_namespace_leads_past_the_owners_limits() -> None:
    limited = route(home="shop", path="/")
    limited["metadata"]["annotations"] = {ANNOTATION: "global client 5/m deny"}
    found, said = look(route(path="/"), limited)
    assert [(one.name, one.match.namespace) for one in found] == [("shop/of-shop/0", "")]
    assert [one.strict for one in found[0].rule.limits] == [True]
    assert said["Accepted"] == ("False", "NoMatchingParent")


def test_limits_on_another_port_close_none_that_has_no_limits() -> None:
    limited = route(home="shop", path="/")
    limited["metadata"]["annotations"] = {ANNOTATION: "5/m"}
    limited["spec"]["parentRefs"][0]["port"] = 9000
    found, said = look(route(path="/"), limited)
    assert [one.match.namespace for one in found] == ["buyers", "buyers", ""]
    assert said["Accepted"] == ("True", "Accepted")


def test_without_the_owners_word_it_does_nothing_and_is_told() -> None:
    found, said = look(route(), allowed=False)
    assert found == []
    assert said["Accepted"] == ("False", "NoMatchingParent")


def test_another_service_of_that_namespace_needs_a_grant_still() -> None:
    other = service("other", {"name": "http", "port": 80}, ip="10.96.0.8")
    found, said = look(other, route(backendRefs=[{**TO_WEB, "name": "other"}]))
    assert found[0].destinations == (Destination("", 0),)
    assert said["ResolvedRefs"] == ("False", "RefNotPermitted")


@pytest.mark.parametrize(
    ("changed", "judged"),
    [
        (
            edit("x-role"),
            policy("p", "DENY", TARGET, rules=[{"when": [{"key": "request.headers[x-role]", "values": ["a"]}]}]),
        ),
        (REWRITE, policy("p", "ALLOW", TARGET, rules=[{"to": [{"operation": {"paths": ["/public"]}}]}])),
        (edit("x-other"), policy("p", "CUSTOM", TARGET, rules=[{}], provider={"name": "x"})),
        (edit("x-user"), tokens("t", TARGET, outputClaimToHeaders=[{"header": "x-user", "claim": "sub"}])),
    ],
)
def test_consumers_change_nothing_that_the_services_policies_ask_about(
    changed: dict[str, Any], judged: dict[str, Any]
) -> None:
    assert look(route(changed), judged)[1]["ResolvedRefs"] == ("False", "RefNotPermitted")
    assert look(route(changed), judged)[0][0].destinations == (Destination("", 0),)
    # The owner's own route may: he knows what his policies are about.
    own, _ = look(route(changed, home="shop"), judged)
    assert own[0].destinations == (Destination(HOST, PORT),)


def test_a_policy_about_ports_is_no_obstacle_where_the_port_is_the_one_that_was_asked_for() -> None:
    judged = policy("p", "DENY", TARGET, rules=[{"to": [{"operation": {"ports": ["81"]}}]}])
    assert look(route(), judged)[1]["ResolvedRefs"] == ("True", "ResolvedRefs")


def test_routes_about_connections_are_for_ones_own_services_alone() -> None:
    ref = {"group": "", "kind": "Service", "name": "web", "namespace": "shop", "port": 9000}
    backend = {"name": "web", "namespace": "shop", "port": 9000}
    made = raw("TCPRoute", "t", {"parentRefs": [ref], "rules": [{"backendRefs": [backend]}]}, namespace="buyers")
    waypoint = gateway()
    waypoint["metadata"]["annotations"] = {CONSUMERS: "true"}
    found = scene(waypoint, {**made, "apiVersion": "gateway.networking.k8s.io/v1alpha2"}, without=("waypoint",))
    fronts, told = Fronts(("cluster.local",), "istio-system"), derived(found)
    fronts.update(found, told)
    record = found.find(Gateway, "shop", "waypoint")
    assert record is not None
    view = fronts.view(told.waypoints["shop/waypoint"], record)
    assert [one.streams for one in view.fronts] == [()]
    (accepted, *_) = fronts.route_conditions()["TCPRoute/buyers/t"]
    assert (accepted.status, accepted.reason) == ("False", "NoMatchingParent")
