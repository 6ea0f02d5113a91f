"""What a Gateway stands for on a cluster is what was reviewed: the golden file, and what must never change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ambient.kube.networking import Gateway, Infrastructure, Listener, TypedAddress
from ambient.waypoint import deploy
from ambient.waypoint.deployment import DRAIN_S, LINGER_S, Dressing, deployment

GOLDEN = Path(__file__).parents[2] / "golden" / "waypoint" / "objects.json"
GATEWAY = Gateway(
    name="waypoint",
    namespace="shop",
    uid="u-1",
    class_name=deploy.CLASS,
    listeners=(Listener("mesh", 15008, "HBONE"),),
    infrastructure=Infrastructure({"team": "edge"}, {"example.com/note": "yes"}),
)
PLACE = deploy.Placement(
    command=("agent",), environment={"XDS_ADDRESS": "https://control:15012"}, token="/token", root="/root", image="i:1"
)
DRESSING = Dressing(pull_secrets=("registry",), resources={"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}})


def test_the_objects_are_those_of_the_golden_file() -> None:
    made = [deploy.service_account(GATEWAY), deploy.service(GATEWAY), deployment(GATEWAY, PLACE, DRESSING)]
    assert made == json.loads(GOLDEN.read_text())


def test_a_deployments_pods_are_those_that_it_selects_and_it_leaves_their_number_to_others() -> None:
    made = deployment(GATEWAY, PLACE, DRESSING)["spec"]
    assert made["selector"]["matchLabels"].items() <= made["template"]["metadata"]["labels"].items()
    assert "replicas" not in made


def test_an_owners_labels_do_not_take_the_place_of_those_that_hold_it_together() -> None:
    gateway = replace(GATEWAY, infrastructure=Infrastructure({deploy.GATEWAY_NAME: "other", deploy.MANAGED: "me"}))
    labels = deployment(gateway, PLACE, DRESSING)["spec"]["template"]["metadata"]["labels"]
    assert (labels[deploy.GATEWAY_NAME], labels[deploy.MANAGED]) == ("waypoint", deploy.MANAGED_BY)


def test_a_pod_may_do_nothing_that_envoy_does_not_need() -> None:
    spec = deployment(GATEWAY, PLACE, DRESSING)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    written = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert written == ["/tmp"]


def test_a_pod_has_the_time_to_end_what_it_has_begun() -> None:
    assert deployment(GATEWAY, PLACE, DRESSING)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > (
        LINGER_S + DRAIN_S
    )


@pytest.mark.parametrize(
    ("limits", "wanted"), [({"memory": "1Gi"}, "768"), ({"memory": "512Mi"}, "384"), ({"cpu": "1"}, ""), ({}, "")]
)
def test_envoy_is_told_how_much_memory_is_its_own(limits: dict[str, str], wanted: str) -> None:
    made = deployment(GATEWAY, PLACE, Dressing(resources={"limits": limits}))
    (container,) = made["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: one.get("value", "") for one in container["env"]}
    assert told.get("AMBIENT_ENVOY_HEAP_MIB", "") == wanted


def test_a_gateway_that_names_a_service_is_not_deployed() -> None:
    assert deploy.is_managed(GATEWAY)
    assert deploy.is_managed(replace(GATEWAY, wanted=(TypedAddress("IPAddress", "10.0.0.1"),)))
    assert not deploy.is_managed(replace(GATEWAY, wanted=(TypedAddress("Hostname", "mine.shop.svc.cluster.local"),)))
