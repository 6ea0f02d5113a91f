"""What is taken out of an object before it is parsed makes no difference to what is read of it."""

from __future__ import annotations

from typing import Any

from ambient.kube.api.slim import slim
from ambient.kube.objects import Pod, parse_object

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "a",
        "namespace": "shop",
        "uid": "u",
        "labels": {"app": "a"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "ambient.mesh/x": "1"},
        "managedFields": [{"manager": "kubelet"}],
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a-1", "controller": True}],
        "creationTimestamp": "2026-01-01T00:00:00Z",
    },
    "spec": {
        "nodeName": "n1",
        "serviceAccountName": "acc",
        "hostNetwork": False,
        "containers": [
            {
                "name": "c",
                "image": "i",
                "env": [{"name": "A", "value": "b"}],
                "ports": [{"containerPort": 80, "name": "http"}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }
        ],
        "volumes": [{"name": "v", "unheardOf": {}}],
        "tolerations": [{}],
    },
    "status": {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
        "hostIP": "10.1.0.1",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "ready": True}],
    },
}


def test_what_the_mesh_reads_of_a_pod_is_still_there() -> None:
    pod = parse_object(slim("Pod", POD), "x", observed=True)
    full = parse_object(POD, "x", observed=True)
    assert isinstance(pod, Pod)
    assert isinstance(full, Pod)
    for name in (
        "node_name",
        "service_account",
        "ips",
        "host_ip",
        "phase",
        "ready",
        "owner",
        "labels",
        "uid",
        "created",
    ):
        assert getattr(pod, name) == getattr(full, name), name
    assert pod.named_port("http", "TCP") == 80
    assert dict(pod.annotations) == {"ambient.mesh/x": "1"}


def test_most_of_it_is_gone() -> None:
    assert "managedFields" not in slim("Pod", POD)["metadata"]
    assert set(slim("Pod", POD)["spec"]) == {"nodeName", "serviceAccountName", "hostNetwork", "containers"}
    assert slim("Pod", POD)["spec"]["containers"] == [{"name": "c", "ports": [{"containerPort": 80, "name": "http"}]}]
    assert POD["metadata"]["managedFields"]


def test_a_policy_keeps_every_field_of_its_spec() -> None:
    policy = {"metadata": {"name": "a"}, "spec": {"rules": [{"unheardOf": 1}], "x": 2}, "status": {"y": 3}}
    assert slim("AuthorizationPolicy", policy) == policy


def test_what_has_the_wrong_type_is_left_for_the_parser_to_refuse() -> None:
    broken: dict[str, Any] = {"metadata": 1, "spec": [], "status": "x"}
    for kind in ("Pod", "Node", "ServiceAccount", "Service"):
        assert slim(kind, broken) == broken
    assert slim("Pod", {"spec": {"containers": ["x", {"name": 1}]}})["spec"]["containers"] == ["x", {"name": 1}]
