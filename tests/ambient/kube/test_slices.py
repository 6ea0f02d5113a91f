"""EndpointSlice: what is read, and every rule that refuses one, with its whole reason."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.networking import EndpointSlice, SliceEndpoint, SlicePort
from ambient.kube.objects import parse_object
from tests.support.refusals import REMOVE, Bad, changed, refused_exactly

SLICE: dict[str, Any] = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {"name": "web-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
    "addressType": "IPv4",
    "endpoints": [
        {
            "addresses": ["10.0.0.1"],
            "conditions": {"ready": False, "serving": True, "terminating": True},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1", "uid": "u"},
            "nodeName": "n1",
            "zone": "z1",
            "hints": {"forZones": [{"name": "z1"}]},
        },
        {"addresses": ["10.0.0.2"]},
    ],
    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"port": 9000, "name": "", "appProtocol": "h"}],
}

RULES = [
    Bad("addressType", REMOVE, "is required"),
    Bad("addressType", "ipv4", "'ipv4' is not one of IPv4, IPv6, FQDN"),
    Bad("addressType", "IPv6", "'10.0.0.1' is not IPv6", at="endpoints[0].addresses[0]"),
    Bad("spec", {}, "unknown field"),
    Bad("endpoints", {}, "expected a list, found a mapping"),
    Bad("endpoints", [{"addresses": ["10.0.0.1"]}] * 1001, "at most 1000 entries"),
    Bad("endpoints.0.addresses", REMOVE, "is required"),
    Bad("endpoints.0.addresses", [], "needs at least one address"),
    Bad("endpoints.0.addresses", [f"10.0.0.{n}" for n in range(101)], "at most 100 entries"),
    Bad("endpoints.0.addresses.0", "db.example.com", "'db.example.com' is not an IP address"),
    Bad("endpoints.0.addresses.0", "fd00::1", "'fd00::1' is not IPv4"),
    Bad("endpoints.0.conditions.ready", "yes", "expected true or false, found a string ('yes')"),
    Bad("endpoints.0.conditions.healthy", True, "unknown field"),
    Bad("endpoints.0.targetRef.node", "n1", "unknown field"),
    Bad("endpoints.0.port", 80, "unknown field"),
    Bad("ports.0.port", 0, "0 is not a port (1..65535)"),
    Bad("ports.0.protocol", "tcp", "'tcp' is not one of TCP, UDP, SCTP"),
    Bad("ports.1.name", "http", "two ports are called 'http'", at="ports"),
    Bad("ports", [{"name": f"p{n}"} for n in range(101)], "at most 100 entries"),
]


def test_what_is_read() -> None:
    found = parse_object(SLICE, "x")
    assert isinstance(found, EndpointSlice)
    assert (found.key, found.service) == ("EndpointSlice/shop/web-x", "web")
    assert found.endpoints == (
        SliceEndpoint(("10.0.0.1",), False, True, True, ("Pod", "shop", "web-1"), "n1", "z1"),
        SliceEndpoint(("10.0.0.2",)),
    )
    assert found.ports == (SlicePort("http", 8080), SlicePort("", 9000))


def test_an_endpoint_that_does_not_say_is_ready_and_serving() -> None:
    found = parse_object(changed(SLICE, "endpoints", [{"addresses": ["10.0.0.1"], "conditions": {}}]), "x")
    assert isinstance(found, EndpointSlice)
    assert (found.endpoints[0].ready, found.endpoints[0].serving, found.endpoints[0].terminating) == (True, True, False)


def test_names_of_hosts_are_addresses_of_type_fqdn() -> None:
    found = parse_object(changed(changed(SLICE, "addressType", "FQDN"), "endpoints", [{"addresses": ["a.b"]}]), "x")
    assert isinstance(found, EndpointSlice)
    assert found.endpoints[0].addresses == ("a.b",)


def test_a_live_server_may_know_more_fields() -> None:
    parse_object(changed(SLICE, "endpoints.0.weight", 3), "x", observed=True)


@pytest.mark.parametrize("bad", RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[:60])
def test_a_broken_rule_is_refused(bad: Bad) -> None:
    refused_exactly(SLICE, bad)
