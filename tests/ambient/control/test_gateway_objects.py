"""Which Gateways the control plane makes objects for, and with what settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.control.gateway_objects import objects_of
from ambient.control.settings import ControlSettings, read_control_settings
from ambient.errors import InvalidInput
from ambient.kube.networking import Gateway, Listener, TypedAddress
from ambient.waypoint.deploy import ACCOUNT, CLASS

GATEWAY = Gateway(name="w", namespace="shop", class_name=CLASS, listeners=(Listener("mesh", 15008, "HBONE"),))


def settings(**more: str) -> ControlSettings:
    given = {"AMBIENT_OBJECTS": "kubernetes", "AMBIENT_WAYPOINT_IMAGE": "mesh:1", "POD_NAMESPACE": "system", **more}
    return read_control_settings(given)


def test_a_waypoint_is_an_account_a_service_and_a_deployment_of_our_image() -> None:
    made = objects_of(settings(AMBIENT_WAYPOINT_RESOURCES='{"limits": {"memory": "1Gi"}}'))(GATEWAY)
    assert [one["kind"] for one in made] == ["ServiceAccount", "Service", "Deployment"]
    (container,) = made[-1]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "mesh:1"
    assert container["resources"] == {"limits": {"memory": "1Gi"}}
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["XDS_ADDRESS"] == "https://ambient-control.system.svc:15012"
    assert environment["AUTH_TOKEN"].startswith(container["volumeMounts"][0]["mountPath"])


def test_an_account_that_a_gateway_names_is_not_made() -> None:
    made = objects_of(settings())(replace(GATEWAY, annotations={ACCOUNT: "mine"}))
    assert [one["kind"] for one in made] == ["Service", "Deployment"]
    assert made[-1]["spec"]["template"]["spec"]["serviceAccountName"] == "mine"


@pytest.mark.parametrize(
    "gateway",
    [
        replace(GATEWAY, class_name="istio"),
        replace(GATEWAY, listeners=(Listener("web", 80, "HTTP"),)),
        replace(GATEWAY, wanted=(TypedAddress("Hostname", "mine.shop.svc.cluster.local"),)),
    ],
)
def test_for_others_nothing_is_made(gateway: Gateway) -> None:
    assert objects_of(settings())(gateway) == ()


@pytest.mark.parametrize("given", ["[]", '{"memory": "1Gi"}', "much"])
def test_resources_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(InvalidInput, match="AMBIENT_WAYPOINT_RESOURCES"):
        settings(AMBIENT_WAYPOINT_RESOURCES=given)
