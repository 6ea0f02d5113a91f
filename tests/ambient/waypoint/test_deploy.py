"""The objects that a Gateway stands for are such that the API takes them, and belong to it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.kube.networking import Gateway, Infrastructure, Listener
from ambient.kube.objects import Pod, Service, parse_object
from ambient.waypoint import deploy

GATEWAY = Gateway(
    name="waypoint", namespace="shop", uid="u-1", class_name=deploy.CLASS, listeners=(Listener("mesh", 15008, "HBONE"),)
)
PLACE = deploy.Placement(command=("run",), environment={"X": "1"}, token="/t", root="/r", image="i")


def test_the_service_leads_to_the_pods_of_the_template() -> None:
    service = parse_object(deploy.service(GATEWAY), "x")
    pod = parse_object({"apiVersion": "v1", "kind": "Pod", **_named(deploy.pod_template(GATEWAY, PLACE))}, "x")
    assert isinstance(service, Service)
    assert isinstance(pod, Pod)
    assert service.selector.items() <= pod.labels.items()
    assert pod.service_account == "waypoint"
    assert [port.port for port in service.ports] == [15021, 15008]
    assert service.raw["metadata"]["ownerReferences"][0]["uid"] == "u-1"


def _named(template: dict[str, dict[str, object]]) -> dict[str, object]:
    return {**template, "metadata": {**template["metadata"], "name": "waypoint-1", "namespace": "shop"}}


def test_an_annotation_names_another_service_account() -> None:
    gateway = replace(GATEWAY, annotations={deploy.ACCOUNT: "edge"})
    assert deploy.service_account(gateway)["metadata"]["name"] == deploy.account_of(gateway) == "edge"


@pytest.mark.parametrize("listeners", [(), (Listener("web", 80, "HTTP"),), (Listener("mesh", 15009, "HBONE"),)])
def test_a_gateway_with_other_listeners_is_no_waypoint(listeners: tuple[Listener, ...]) -> None:
    found = deploy.trouble(replace(GATEWAY, listeners=listeners))
    assert found is not None
    assert (found.type, found.status, found.reason) == ("Accepted", "False", "UnsupportedProtocol")
    assert found.message.startswith("Expected a single listener on port 15008")
    assert deploy.trouble(GATEWAY) is None


@pytest.mark.parametrize("name", ["istio-waypoint", "ambient"])
@pytest.mark.parametrize(
    ("parameters", "reason"),
    [("", ""), ("ConfigMap/x", ""), ("Pool/x", "InvalidParameters"), ("ConfigMap.example.com/x", "InvalidParameters")],
)
def test_parameters_of_an_unheard_of_kind_are_refused(name: str, parameters: str, reason: str) -> None:
    gateway = replace(GATEWAY, class_name=name, infrastructure=Infrastructure(parameters=parameters))
    found = deploy.trouble(gateway)
    assert (found.reason if found is not None else "") == reason
