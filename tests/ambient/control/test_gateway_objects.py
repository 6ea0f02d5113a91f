"""Which Gateways the control plane makes objects for, and with what settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.control.gateway_objects import objects_of
from ambient.control.settings import ControlSettings, read_control_settings
from ambient.errors import InvalidInput
from ambient.kube.networking import Gateway, GatewayClass, Listener, TypedAddress
from ambient.kube.objects import Records
from ambient.kube.routing import GATEWAY_CONTROLLER
from ambient.waypoint.deploy import ACCOUNT, CLASS

RECORDS = Records()
IMAGES = {"AMBIENT_WAYPOINT_IMAGE": "mesh:1", "AMBIENT_GATEWAY_IMAGE": "mesh:2"}
FRONT = Gateway(name="front", namespace="shop", class_name="ambient", listeners=(Listener("web", 80, "HTTP"),))
GATEWAY = Gateway(name="w", namespace="shop", class_name=CLASS, listeners=(Listener("mesh", 15008, "HBONE"),))


def settings(**more: str) -> ControlSettings:
    given = {"AMBIENT_OBJECTS": "kubernetes", "POD_NAMESPACE": "system", **IMAGES, **more}
    return read_control_settings(given)


def test_a_waypoint_is_an_account_a_service_and_a_deployment_of_our_image() -> None:
    made = objects_of(settings(AMBIENT_WAYPOINT_RESOURCES='{"limits": {"memory": "1Gi"}}'))(RECORDS, GATEWAY)
    assert [one["kind"] for one in made] == ["ServiceAccount", "Service", "Deployment"]
    (container,) = made[-1]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "mesh:1"
    assert container["resources"] == {"limits": {"memory": "1Gi"}}
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["XDS_ADDRESS"] == "https://ambient-control.system.svc:15012"
    assert environment["AUTH_TOKEN"].startswith(container["volumeMounts"][0]["mountPath"])


def test_an_account_that_a_gateway_names_is_not_made() -> None:
    made = objects_of(settings())(RECORDS, replace(GATEWAY, annotations={ACCOUNT: "mine"}))
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
    assert objects_of(settings())(RECORDS, gateway) == ()


def of_class(controller: str) -> Records:
    record = GatewayClass(name="ambient", controller=controller)
    return Records(by_key={record.key: record})


def test_an_ingress_of_a_class_of_ours_is_made_on_ports_that_only_root_has_otherwise() -> None:
    account, service, made = objects_of(settings())(of_class(GATEWAY_CONTROLLER), FRONT)
    assert {one["metadata"]["name"] for one in (account, service, made)} == {"front-ambient"}
    assert service["spec"]["type"] == "LoadBalancer"
    assert [port["port"] for port in service["spec"]["ports"]] == [15021, 80]
    template = made["spec"]["template"]["spec"]
    assert template["containers"][0]["image"] == "mesh:2"
    assert template["securityContext"]["sysctls"] == [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]


def test_a_listener_on_a_port_of_the_proxys_own_is_none_of_the_services() -> None:
    ports = (80, 15020, 15021, 15090, 443)
    front = replace(FRONT, listeners=tuple(Listener(f"l{port}", port, "HTTP") for port in ports))
    _, service, _ = objects_of(settings())(of_class(GATEWAY_CONTROLLER), front)
    assert [port["port"] for port in service["spec"]["ports"]] == [15021, 80, 443]


@pytest.mark.parametrize("records", [Records(), of_class("istio.io/gateway-controller")])
def test_for_an_ingress_of_somebody_elses_class_nothing_is_made(records: Records) -> None:
    assert objects_of(settings())(records, FRONT) == ()


def test_what_there_is_no_image_for_is_left_to_others() -> None:
    ours = of_class(GATEWAY_CONTROLLER)
    assert objects_of(settings(AMBIENT_GATEWAY_IMAGE=""))(ours, FRONT) == ()
    assert objects_of(settings(AMBIENT_WAYPOINT_IMAGE=""))(ours, GATEWAY) == ()
    assert objects_of(settings(AMBIENT_WAYPOINT_IMAGE=""))(ours, FRONT)


@pytest.mark.parametrize("given", ["[]", '{"memory": "1Gi"}', "much"])
def test_resources_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(InvalidInput, match="AMBIENT_WAYPOINT_RESOURCES"):
        settings(AMBIENT_WAYPOINT_RESOURCES=given)
