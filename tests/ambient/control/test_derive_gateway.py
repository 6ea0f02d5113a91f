"""What an ingress gateway serves: routes by listener and host, what is judged first, what is not served at all."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.derive_gateway import topology
from ambient.kube.objects import Gateway, parse_object
from ambient.waypoint.door import Topology
from tests.support.gateway_records import HTTP, TO_WEB, https, ingress, route, secret, site, statuses, tls_route, told
from tests.support.waypoint_records import policy, tokens

OF_GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}
OF_CLASS = {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "istio"}
PATH = {"matches": [{"path": {"type": "Exact", "value": "/x"}}], **TO_WEB}


def sites(*objects: dict[str, Any], door: int = 0) -> dict[str, list[str]]:
    """Names of the routes behind each host."""
    found = told(*objects).view.doors[door].sites
    return {one.hostname: [each.name for each in one.routes] for one in found}


def test_the_rules_of_a_more_exact_host_come_first_and_those_of_wider_ones_after() -> None:
    wide = route("wide", PATH, hosts=("*.example.com",))
    exact = route("exact", hosts=("a.example.com",))
    assert sites(ingress(), wide, exact) == {
        "a.example.com": ["shop/exact/0", "shop/wide/0"],
        "*.example.com": ["shop/wide/0"],
        "*": [],
    }


def test_a_host_belongs_to_the_most_exact_listener_of_its_port() -> None:
    listeners = (HTTP, {**HTTP, "name": "a", "hostname": "a.example.com"}, {**HTTP, "name": "b", "port": 81})
    everywhere = route("r", hosts=("a.example.com", "b.example.com"))
    first = route("first", hosts=("a.example.com",), sectionName="http")
    found = (ingress(*listeners), everywhere, first)
    assert sites(*found, door=0) == {"b.example.com": ["shop/r/0"], "*": []}
    assert sites(*found, door=1) == {"a.example.com": ["shop/r/0"]}
    assert sites(*found, door=2)["a.example.com"] == ["shop/r/0"]


def test_over_tls_a_host_of_another_listener_is_not_answered_for() -> None:
    gateway = ingress(https(), https("a.example.com"), https("*.example.com"))
    found = told(gateway, secret("site", site("a.example.com")), route("r"))
    assert [set(one.elsewhere) for one in found.view.doors] == [
        {"a.example.com", "*.example.com"},
        {"*", "*.example.com"},
        {"*", "a.example.com"},
    ]


@pytest.mark.parametrize(
    ("ref", "namespace", "counts"),
    [
        (OF_GATEWAY, "shop", True),
        (OF_GATEWAY, "default", False),
        ({**OF_GATEWAY, "name": "other"}, "shop", False),
        (OF_CLASS, "istio-system", True),
        (OF_CLASS, "shop", False),
        ({**OF_CLASS, "name": "istio-waypoint"}, "istio-system", False),
    ],
)
def test_what_is_judged_at_a_gateway_is_what_names_it(ref: dict[str, str], namespace: str, counts: bool) -> None:
    found = told(ingress(), policy("p", "DENY", ref, namespace=namespace, rules=[{}]))
    assert bool(found.view.policies) is counts
    found = told(ingress(), tokens("t", ref, namespace=namespace))
    assert bool(found.view.tokens) is counts


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ({"name": "absent", "port": 80}, "BackendNotFound"),
        ({"name": "web", "port": 1}, "BackendNotFound"),
        ({"name": "web", "namespace": "other", "port": 80}, "RefNotPermitted"),
        ({"group": "example.com", "kind": "Bucket", "name": "web"}, "InvalidKind"),
    ],
)
def test_a_backend_that_cannot_be_had_is_said_and_gets_nothing(backend: dict[str, Any], reason: str) -> None:
    found = told(ingress(), route("r", {"backendRefs": [backend]}))
    (said,) = found.parents["HTTPRoute/shop/r"]
    assert statuses(said.conditions)["ResolvedRefs"] == ("False", reason)
    assert found.view.doors[0].sites[0].routes[0].destinations[0].hostname == ""
    assert found.view.pools == ()


def test_what_is_carried_unread_goes_where_the_route_of_its_name_says() -> None:
    passed = {"name": "p", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}
    named = {**passed, "name": "a", "hostname": "a.example.com"}
    found = told(
        ingress(passed, named),
        tls_route("any", "*.example.com", sectionName="p"),
        tls_route("own", "a.example.com"),
        tls_route("lost", "b.example.com", to="absent"),
        route("http"),
    )
    leads = [[(name, [each.hostname for each in to]) for name, to in one.destinations] for one in found.view.doors]
    web = ["web.shop.svc.cluster.local"]
    assert leads == [[("b.example.com", [""]), ("*.example.com", web)], [("a.example.com", web)]]
    assert [one.attached for one in found.listeners] == [3, 1]
    (said,) = found.parents["TLSRoute/shop/lost"]
    assert statuses(said.conditions)["ResolvedRefs"] == ("False", "BackendNotFound")
    (said,) = found.parents["HTTPRoute/shop/http"]
    assert statuses(said.conditions)["Accepted"] == ("False", "NotAllowedByListeners")


def test_a_listener_that_cannot_be_served_leaves_the_others() -> None:
    found = told(ingress(HTTP, {**HTTP, "name": "udp", "protocol": "UDP"}), route("r"))
    assert ([one.name for one in found.view.doors], found.accepted.status) == (["http"], "True")
    assert found.accepted.reason == "ListenersNotValid"
    found = told(ingress({**HTTP, "protocol": "UDP"}))
    assert (found.view.doors, found.accepted.status) == ((), "False")


@pytest.mark.parametrize(
    ("notes", "wanted"),
    [
        ({}, Topology()),
        ({"ambient.mesh/trusted-proxies": "2", "ambient.mesh/proxy-protocol": "true"}, Topology(2, True)),
        ({"ambient.mesh/trusted-proxies": "-1"}, Topology()),
        ({"ambient.mesh/trusted-proxies": "x", "ambient.mesh/proxy-protocol": "yes"}, Topology()),
    ],
)
def test_what_stands_before_a_gateway_is_believed_as_far_as_its_owner_says(
    notes: dict[str, str], wanted: Topology
) -> None:
    gateway = parse_object(ingress(HTTP, **notes), "x")
    assert isinstance(gateway, Gateway)
    assert topology(gateway) == wanted


def test_what_a_backend_edits_is_edited_on_the_way_to_it_alone() -> None:
    edits = [{"type": f"{side}HeaderModifier", f"{key}HeaderModifier": {"set": [{"name": "x-a", "value": side}]}}
             for side, key in (("Request", "request"), ("Response", "response"))]  # fmt: skip
    backends = [{"name": "web", "port": 80, "filters": edits}, {"name": "web", "port": 80}]
    (door,) = told(ingress(), route("r", {"backendRefs": backends})).view.doors
    ((edited, plain),) = [each.destinations for each in door.sites[0].routes]
    assert (edited.request.set, edited.response.set) == ((("x-a", "Request"),), (("x-a", "Response"),))
    assert (plain.request.set, plain.response.set) == ((), ())


@pytest.mark.parametrize(
    ("listened", "redirect", "port"),
    [(8080, {}, 8080), (80, {}, 0), (8080, {"scheme": "https"}, 0), (8080, {"port": 81}, 81)],
)
def test_a_redirect_stays_on_the_listeners_port_unless_it_says_where_to(
    listened: int, redirect: dict[str, Any], port: int
) -> None:
    rule = {"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 302, **redirect}}]}
    (door,) = told(ingress({**HTTP, "port": listened}), route("r", rule)).view.doors
    (made,) = [each.rule.redirect for each in door.sites[0].routes]
    assert made is not None
    assert made.port == port


def test_a_listener_whose_clients_nobody_vouches_for_is_not_accepted() -> None:
    check = {"caCertificateRefs": [{"kind": "ConfigMap", "name": "absent"}]}
    found = told(ingress(https("", frontendValidation=check)), secret("site", site("a.example.com")))
    assert found.view.doors == ()
    said = statuses(found.listeners[0].conditions)
    assert said["Accepted"] == ("False", "NoValidCACertificate")
    assert said["Programmed"][0] == said["ResolvedRefs"][0] == "False"
