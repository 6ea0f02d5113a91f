"""What becomes of objects, row by row: the table `target`."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.derive import derive
from ambient.control.derive_world import DeriveSettings
from ambient.kube.routing import GATEWAY_CONTROLLER
from tests.support.derivation import Row, table
from tests.support.gateway_records import API, ingress
from tests.support.waypoint_records import policy, scene


@pytest.mark.parametrize("row", table("target"), ids=lambda row: row.name)
def test_row(row: Row) -> None:
    row.check()


GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}
CLASS = {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "istio"}


def of_class(controller: str) -> dict[str, Any]:
    spec = {"controllerName": controller}
    return {"apiVersion": API, "kind": "GatewayClass", "metadata": {"name": "istio"}, "spec": spec}


@pytest.mark.parametrize(
    ("controller", "reason", "why"),
    [
        (GATEWAY_CONTROLLER, "Accepted", "bound to"),
        ("istio.io/gateway-controller", "AncestorNotBound", "is not ready"),
        ("", "AncestorNotBound", "is not ready"),
    ],
)
def test_on_a_cluster_a_gateway_that_is_somebody_elses_binds_nothing(controller: str, reason: str, why: str) -> None:
    found = scene(ingress(), policy("p", "DENY", GATEWAY), *([of_class(controller)] if controller else []))
    (said,) = derive(found, DeriveSettings(ingress_classes=frozenset())).conditions["AuthorizationPolicy/shop/p"]
    assert (said.type, said.reason) == ("WaypointAccepted", reason)
    assert why in said.message


@pytest.mark.parametrize(
    ("controller", "reason"),
    [(GATEWAY_CONTROLLER, "Accepted"), ("istio.io/gateway-controller", "AncestorNotBound"), ("", "TargetNotFound")],
)
def test_and_so_does_a_class_that_is_somebody_elses(controller: str, reason: str) -> None:
    ruling = policy("p", "DENY", CLASS, namespace="istio-system")
    found = scene(ruling, *([of_class(controller)] if controller else []))
    (said,) = derive(found, DeriveSettings(ingress_classes=frozenset())).conditions[
        "AuthorizationPolicy/istio-system/p"
    ]
    assert said.reason == reason
