from __future__ import annotations

from typing import Any

import pytest

from ambient.cli.manifest import MESH_CONFIG, RESOURCES, pieces, progress, shipped
from ambient.errors import InvalidInput

IMAGE = "registry.example.org/ambient:7"


def test_the_shipped_manifest_gets_the_image_that_was_asked_for() -> None:
    made = pieces(shipped(), image=IMAGE)
    images = {
        container["image"]
        for piece in made
        if piece.kind in ("Deployment", "DaemonSet")
        for container in piece.content["spec"]["template"]["spec"]["containers"]
    }
    assert images == {IMAGE}


def test_what_others_need_comes_first_and_workloads_come_last() -> None:
    kinds = [piece.kind for piece in pieces(shipped(), image=IMAGE)]
    assert kinds[0] == "Namespace"
    assert kinds == sorted(kinds, key=list(RESOURCES).index)
    assert kinds[-3:] == ["Deployment", "DaemonSet", "DaemonSet"]


def test_agents_are_replaced_before_ztunnels() -> None:
    names = [piece.name for piece in pieces(shipped(), image=IMAGE) if piece.kind == "DaemonSet"]
    assert names == ["ambient-agent", "ztunnel"]


def test_another_namespace_is_named_everywhere() -> None:
    made = pieces(shipped(), image=IMAGE, namespace="mesh")
    assert "ambient-system" not in str([piece.content for piece in made])
    assert {piece.namespace for piece in made} == {"", "mesh"}


def test_a_setting_reaches_the_config_map_and_makes_pods_again() -> None:
    made = pieces(shipped(), image=IMAGE, settings=["TRUST_DOMAIN=example.org"])
    settings = next(piece for piece in made if str(piece).endswith("/ambient") and piece.kind == "ConfigMap")
    assert settings.content["data"]["TRUST_DOMAIN"] == "example.org"
    workloads = [piece for piece in made if piece.kind in ("Deployment", "DaemonSet")]
    for piece in workloads:
        template = piece.content["spec"]["template"]
        assert template["metadata"]["annotations"]["ambient.mesh/set"] == "TRUST_DOMAIN=example.org"


def test_a_mesh_config_is_where_the_control_plane_reads_it() -> None:
    text = "extensionProviders: [{name: me, envoyExtAuthzGrpc: {service: authz.shop.svc.cluster.local, port: 9000}}]"
    made = pieces(shipped(), image=IMAGE, namespace="mesh", mesh_config=text)
    found = next(piece for piece in made if piece.name == MESH_CONFIG)
    assert (found.kind, found.namespace, found.content["data"]) == ("ConfigMap", "mesh", {"mesh": text})
    control = next(piece for piece in made if piece.kind == "Deployment").content["spec"]["template"]["spec"]
    (volume,) = [one for one in control["volumes"] if one.get("configMap", {}).get("name") == MESH_CONFIG]
    (container,) = control["containers"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == volume["name"]]
    told = {one["name"]: one.get("value") for one in container["env"]}
    assert told["AMBIENT_MESH_CONFIG"] == f"{mount['mountPath']}/mesh"
    assert volume["configMap"]["optional"] is True


def test_without_one_what_is_there_is_left_alone() -> None:
    assert MESH_CONFIG not in {piece.name for piece in pieces(shipped(), image=IMAGE)}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"image": ""}, "--image"),
        ({"image": "two words"}, "--image"),
        ({"namespace": "Not_One"}, "--namespace"),
        ({"settings": ["trust-domain=x"]}, "--set"),
        ({"settings": ["TRUST_DOMAIN"]}, "--set"),
        ({"mesh_config": "extensionProviders: [{name: me, envoyExtAuthzGrpc: {service: a.b, port: 0}}]"}, "port: 0"),
        ({"mesh_config": "- no mapping"}, "--mesh-config"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_option(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        pieces(shipped(), **{"image": IMAGE, **changed})


def test_a_kind_that_is_not_known_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Job x"):
        pieces("{apiVersion: batch/v1, kind: Job, metadata: {name: x}}", image=IMAGE)


def workload(kind: str, generation: int = 2, observed: int = 2, **status: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "metadata": {"generation": generation},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": observed, **status},
    }


@pytest.mark.parametrize(
    ("content", "waits_for"),
    [
        (workload("Deployment", observed=1), "not looked at yet"),
        (workload("Deployment", updatedReplicas=1, replicas=1), "1 of 2 are of this version"),
        (workload("Deployment", updatedReplicas=2, replicas=3), "1 of the version before are left"),
        (workload("Deployment", updatedReplicas=2, replicas=2, availableReplicas=1), "1 of 2 are available"),
        (workload("Deployment", updatedReplicas=2, replicas=2, availableReplicas=2), ""),
        (workload("DaemonSet", desiredNumberScheduled=3), "0 of 3 are of this version"),
        (workload("DaemonSet", desiredNumberScheduled=3, updatedNumberScheduled=3), "0 of 3 are available"),
        (workload("DaemonSet", desiredNumberScheduled=1, updatedNumberScheduled=1, numberAvailable=1), ""),
    ],
)
def test_a_rollout_says_what_it_waits_for(content: dict[str, Any], waits_for: str) -> None:
    assert progress(content) == waits_for


def test_what_is_shipped_trusts_no_account_of_another_mesh_and_binds_each_agent_to_its_node() -> None:
    made = pieces(shipped(), image=IMAGE)
    assert "istio-system/ztunnel" not in str([piece.content for piece in made])
    bound = next(piece for piece in made if piece.kind == "ValidatingAdmissionPolicyBinding")
    assert bound.content["spec"] == {"policyName": "ambient-agent", "validationActions": ["Deny"]}
