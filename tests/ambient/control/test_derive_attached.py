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
        ([{**HTTP, "port": 15021}], [("PortUnavailable", "")]),
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
