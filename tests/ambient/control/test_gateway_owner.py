"""Whose a Gateway is, row by row."""

from __future__ import annotations

import pytest

from ambient.control.gateway_owner import is_ours, is_own_class
from ambient.kube.networking import Gateway, GatewayClass
from ambient.kube.routing import CONTROLLER, GATEWAY_CONTROLLER

ISTIO = "istio.io/gateway-controller"


@pytest.mark.parametrize(
    ("name", "controller", "names", "ours"),
    [
        ("istio-waypoint", "", (), True),
        ("ambient", GATEWAY_CONTROLLER, (), True),
        ("ambient", "", (), False),
        ("ambient", "example.com/theirs", (), False),
        ("istio", ISTIO, (), False),
        ("istio", GATEWAY_CONTROLLER, (), True),
        ("istio", "", ("istio",), True),
        ("edge", GATEWAY_CONTROLLER, (), True),
    ],
)
def test_a_gateway_is_ours_by_its_class(name: str, controller: str, names: tuple[str, ...], ours: bool) -> None:
    of_class = GatewayClass(name=name, controller=controller) if controller else None
    assert is_ours(Gateway(name="g", class_name=name), of_class, names) is ours


@pytest.mark.parametrize(
    ("name", "controller", "ours"),
    [
        ("istio-waypoint", CONTROLLER, True),
        ("istio-waypoint", "example.com/theirs", False),
        ("other", CONTROLLER, False),
        ("other", GATEWAY_CONTROLLER, True),
        ("istio", ISTIO, False),
    ],
)
def test_a_class_is_ours_by_its_controller(name: str, controller: str, ours: bool) -> None:
    assert is_own_class(GatewayClass(name=name, controller=controller)) is ours
