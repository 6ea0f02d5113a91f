"""Which listener a route belongs to: by name, port, namespace and host, and what is said when it is none."""

from __future__ import annotations

import pytest

from ambient.control.derive_attached import common, covers, faces
from ambient.kube.objects import Gateway, parse_object
from tests.support.gateway_records import HTTP, https, ingress, route, statuses, told


@pytest.mark.parametrize(
    ("wide", "name", "fits"),
    [
        ("*", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "*.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("a.example.com", "*.example.com", False),
    ],
)
def test_a_host_name_stands_for_others(wide: str, name: str, fits: bool) -> None:
    assert covers(wide, name) is fits


def test_listener_and_route_share_the_narrower_names() -> None:
    assert common("", ()) == ("*",)
    assert common("*.example.com", ("a.example.com", "b.com")) == ("a.example.com",)
    assert common("a.example.com", ("*.example.com",)) == ("a.example.com",)
    assert common("a.example.com", ("b.example.com",)) == ()


LISTENERS = (
    {**HTTP, "hostname": "*.example.com", "allowedRoutes": {"namespaces": {"from": "All"}}},
    {**HTTP, "name": "own", "port": 81},
)


@pytest.mark.parametrize(
    ("parent", "namespace", "hosts", "wanted"),
    [
        ({}, "shop", (), ("True", "Accepted", 2)),
        ({"sectionName": "own"}, "shop", (), ("True", "Accepted", 1)),
        ({"port": 80}, "else", ("a.example.com",), ("True", "Accepted", 1)),
        ({"sectionName": "none"}, "shop", (), ("False", "NoMatchingParent", 0)),
        ({"sectionName": "own", "port": 80}, "shop", (), ("False", "NoMatchingParent", 0)),
        ({"sectionName": "own"}, "else", (), ("False", "NotAllowedByListeners", 0)),
        ({"port": 80}, "shop", ("a.com",), ("False", "NoMatchingListenerHostname", 0)),
    ],
)
def test_a_route_is_attached_where_it_may_be(
    parent: dict[str, object], namespace: str, hosts: tuple[str, ...], wanted: tuple[str, str, int]
) -> None:
    found = told(ingress(*LISTENERS), route("r", hosts=hosts, namespace=namespace, **parent))
    (said,) = found.parents[f"HTTPRoute/{namespace}/r"]
    attached = sum(one.attached for one in found.listeners)
    assert (*statuses(said.conditions)["Accepted"], attached) == wanted


@pytest.mark.parametrize(
    ("listeners", "wanted"),
    [
        ([{**HTTP, "protocol": "UDP"}], [("UnsupportedProtocol", "")]),
        *(([{**HTTP, "port": port}], [("PortUnavailable", "")]) for port in (15020, 15021, 15090)),
        ([{**HTTP, "port": 443}, https()], [("", "ProtocolConflict"), ("", "ProtocolConflict")]),
        (
            [https("a.com"), {**https("a.com"), "name": "t", "protocol": "TLS", "tls": {"mode": "Passthrough"}}],
            [("", "HostnameConflict"), ("", "HostnameConflict")],
        ),
        ([{**HTTP, "protocol": "TLS", "tls": {"mode": "Terminate"}}], [("UnsupportedProtocol", "")]),
        ([{**https(), "tls": {"mode": "Passthrough"}}], [("UnsupportedProtocol", "")]),
        ([HTTP, {**HTTP, "name": "b", "hostname": "b.com"}], [("", ""), ("", "")]),
    ],
)
def test_listeners_that_cannot_be_served_say_why(
    listeners: list[dict[str, object]], wanted: list[tuple[str, str]]
) -> None:
    gateway = parse_object(ingress(*listeners), "x")
    assert isinstance(gateway, Gateway)
    assert [(one.unserved[0], one.conflict[0]) for one in faces(gateway)] == wanted


@pytest.mark.parametrize(
    ("kind", "protocol", "reason"),
    [
        ("GRPCRoute", "HTTP", "Accepted"),
        ("GRPCRoute", "HTTPS", "Accepted"),
        ("GRPCRoute", "TLS", "NotAllowedByListeners"),
        ("TCPRoute", "HTTP", "NotAllowedByListeners"),
    ],
)
def test_a_listener_takes_routes_about_what_it_serves(kind: str, protocol: str, reason: str) -> None:
    tls = {"HTTPS": {"tls": {"certificateRefs": [{"name": "site"}]}}, "TLS": {"tls": {"mode": "Passthrough"}}}
    made = {**route("r"), "kind": kind}
    made["spec"].pop("hostnames")
    if kind == "TCPRoute":
        made["apiVersion"] = "gateway.networking.k8s.io/v1alpha2"
    found = told(ingress({**HTTP, "protocol": protocol, **tls.get(protocol, {})}), made)
    (said,) = found.parents[f"{kind}/shop/r"]
    assert statuses(said.conditions)["Accepted"][1] == reason


def test_requests_for_a_method_go_where_a_grpc_route_says_for_its_hosts() -> None:
    match = {"method": {"service": "shop.Cart", "method": "Add"}}
    rule = {"matches": [match], "backendRefs": [{"name": "web", "port": 80}]}
    made = {**route("r", rule, hosts=("a.example.com",)), "kind": "GRPCRoute"}
    (door,) = told(ingress(), made).view.doors
    assert {one.hostname: [each.match.path.value for each in one.routes] for one in door.sites} == {
        "a.example.com": ["/shop.Cart/Add"],
        "*": [],
    }
