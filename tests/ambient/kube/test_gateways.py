"""Gateway and GatewayClass: what is read, and every rule that refuses one, with its whole reason."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.networking import (
    Gateway,
    GatewayClass,
    LabelRequirement,
    LabelSelector,
    Listener,
    ObjectRef,
    TypedAddress,
)
from ambient.kube.objects import parse_object
from tests.support.refusals import REMOVE, Bad, changed, refused_exactly

SELECTOR = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["x", "y"]}]}
GATEWAY: dict[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "wp", "namespace": "shop", "labels": {"istio.io/waypoint-for": "all"}},
    "spec": {
        "gatewayClassName": "istio-waypoint",
        "listeners": [
            {
                "name": "mesh",
                "port": 15008,
                "protocol": "HBONE",
                "allowedRoutes": {"namespaces": {"from": "Selector", "selector": SELECTOR}},
            },
            {
                "name": "tls",
                "port": 15443,
                "protocol": "TLS",
                "hostname": "*.example.com",
                "tls": {"mode": "Passthrough", "options": {"a": "b"}},
            },
        ],
        "addresses": [{"type": "Hostname", "value": "gw.example.com"}],
        "infrastructure": {"labels": {}},
        "tls": {"backend": {"clientCertificateRef": {"name": "own", "namespace": "vault"}}},
    },
    "status": {"addresses": [{"type": "IPAddress", "value": "10.96.0.9"}, {"value": "10.96.0.10"}]},
}
CLASS: dict[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1beta1",
    "kind": "GatewayClass",
    "metadata": {"name": "istio-waypoint"},
    "spec": {"controllerName": "istio.io/mesh-controller", "description": "d"},
}

RULES = [
    Bad("spec", REMOVE, "is required"),
    Bad("spec.class", "x", "unknown field"),
    Bad("spec.gatewayClassName", REMOVE, "is required"),
    Bad("spec.listeners", [], "needs at least one listener"),
    Bad(
        "spec.listeners",
        [{"name": f"l{n}", "port": n + 1, "protocol": "TCP"} for n in range(65)],
        "at most 64 entries",
    ),
    Bad("spec.listeners.1.name", "mesh", "two listeners are called 'mesh'", at="spec.listeners"),
    Bad(
        "spec.listeners.2",
        {"name": "again", "port": 15008, "protocol": "HBONE"},
        "'again' has port, protocol and hostname of another listener",
        at="spec.listeners",
    ),
    Bad("spec.listeners.0.port", 70000, "70000 is not a port (1..65535)"),
    Bad("spec.listeners.0.protocol", "", "a protocol has 1..255 characters"),
    Bad("spec.listeners.0.protocol", REMOVE, "is required"),
    Bad("spec.listeners.0.hostname", "a b", "'a b' is not a DNS name (labels of a-z, 0-9 and '-', joined by dots)"),
    Bad("spec.listeners.1.tls.mode", "Mutual", "'Mutual' is not one of Terminate, Passthrough"),
    Bad("spec.listeners.1.tls.version", "1.3", "unknown field"),
    Bad("spec.tls.backend.certificate", "x", "unknown field"),
    Bad("spec.tls.backend.clientCertificateRef.name", REMOVE, "is required"),
    Bad("spec.listeners.0.allowedRoutes.namespaces.from", "Any", "'Any' is not one of Same, All, Selector, None"),
    Bad("spec.listeners.0.allowedRoutes.namespaces.selector", REMOVE, "is required"),
    Bad(
        "spec.listeners.0.allowedRoutes.namespaces.selector.matchExpressions.0.operator",
        "Is",
        "'Is' is not one of In, NotIn, Exists, DoesNotExist",
    ),
    Bad(
        "spec.listeners.0.allowedRoutes.namespaces.selector.matchExpressions.0.values",
        [],
        "In needs at least one value",
        at="spec.listeners[0].allowedRoutes.namespaces.selector.matchExpressions[0]",
    ),
    Bad(
        "spec.listeners.0.allowedRoutes.namespaces.selector.matchExpressions.0.operator",
        "Exists",
        "Exists needs no values",
        at="spec.listeners[0].allowedRoutes.namespaces.selector.matchExpressions[0]",
    ),
    Bad("status.addresses.0.value", "gw", "'gw' is not an IP address"),
    Bad("spec.addresses.0.value", "A", "'A' is not a DNS name (labels of a-z, 0-9 and '-', joined by dots)"),
]
CLASS_RULES = [
    Bad("metadata.namespace", "shop", "a GatewayClass does not live in a namespace"),
    Bad("spec.controllerName", "istio", "'istio' is not <domain>/<path>"),
    Bad("spec.controllerName", REMOVE, "is required"),
    Bad("spec.controller", "x", "unknown field"),
]


def test_what_is_read_of_a_gateway() -> None:
    found = parse_object(GATEWAY, "x")
    assert isinstance(found, Gateway)
    wanted = LabelSelector({"a": "b"}, (LabelRequirement("t", "In", ("x", "y")),))
    assert found.class_name == "istio-waypoint"
    assert found.listeners == (
        Listener("mesh", 15008, "HBONE", allowed="Selector", namespaces=wanted),
        Listener("tls", 15443, "TLS", hostname="*.example.com", tls_mode="Passthrough"),
    )
    assert found.wanted == (TypedAddress("Hostname", "gw.example.com"),)
    assert found.own == ObjectRef("", "Secret", "own", "vault")
    assert found.assigned == (TypedAddress("IPAddress", "10.96.0.9"), TypedAddress("IPAddress", "10.96.0.10"))


def test_what_is_read_of_a_class() -> None:
    found = parse_object(CLASS, "x")
    assert isinstance(found, GatewayClass)
    assert (found.key, found.controller) == ("GatewayClass/_/istio-waypoint", "istio.io/mesh-controller")


def test_istios_own_gateway_is_another_kind() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_object(changed(GATEWAY, "apiVersion", "networking.istio.io/v1"), "f")
    assert caught.value.why == (
        "'networking.istio.io/v1' does not have Gateway; expected gateway.networking.k8s.io/v1 or"
        " gateway.networking.k8s.io/v1beta1"
    )


@pytest.mark.parametrize(
    ("operator", "values", "labels", "fits"),
    [
        ("In", ("x",), {"t": "x"}, True),
        ("In", ("x",), {"t": "y"}, False),
        ("In", ("x",), {}, False),
        ("NotIn", ("x",), {"t": "x"}, False),
        ("NotIn", ("x",), {}, True),
        ("Exists", (), {"t": ""}, True),
        ("Exists", (), {}, False),
        ("DoesNotExist", (), {"t": ""}, False),
        ("DoesNotExist", (), {}, True),
    ],
)
def test_a_selector_fits(operator: str, values: tuple[str, ...], labels: dict[str, str], fits: bool) -> None:
    assert LabelSelector(requirements=(LabelRequirement("t", operator, values),)).fits(labels) is fits


def test_every_part_of_a_selector_must_hold() -> None:
    selector = LabelSelector({"a": "b"}, (LabelRequirement("t", "Exists"),))
    assert selector.fits({"a": "b", "t": "1"})
    assert not selector.fits({"t": "1"})
    assert not selector.fits({"a": "b"})


@pytest.mark.parametrize("bad", RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[-60:])
def test_a_broken_rule_is_refused(bad: Bad) -> None:
    refused_exactly(GATEWAY, bad)


@pytest.mark.parametrize("bad", CLASS_RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[:60])
def test_a_broken_rule_of_a_class_is_refused(bad: Bad) -> None:
    refused_exactly(CLASS, bad)


@pytest.mark.parametrize(("group", "told"), [("", "Pool/fast"), ("example.com", "Pool.example.com/fast")])
def test_parameters_are_told_apart_by_their_group(group: str, told: str) -> None:
    made = changed(GATEWAY, "spec.infrastructure.parametersRef", {"group": group, "kind": "Pool", "name": "fast"})
    found = parse_object(made, "x")
    assert isinstance(found, Gateway)
    assert found.infrastructure.parameters == told
