from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput, Refused
from ambient.kube.objects import Service, parse_object
from ambient.lab.apply import LAST_APPLIED, desired, families, labelled, merge, shown, stamped


def _pod(**spec: Any) -> dict[str, Any]:
    base = {"containers": [{"name": "c", "image": "i", "command": ["true"]}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "a"}, "spec": {**base, **spec}}


def _stored(raw: dict[str, Any], **more: Any) -> dict[str, Any]:
    """As it is after a first apply."""
    live = stamped(raw, raw)
    live["metadata"] |= {"uid": "u", "generation": 1}
    live["spec"] = {**raw["spec"], **more}
    return live


def _service(**spec: Any) -> dict[str, Any]:
    base = {"ports": [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "a"}, "spec": base}


def _parsed_service(**spec: Any) -> Service:
    record = parse_object(_service(**spec), "t")
    assert isinstance(record, Service)
    return record


def test_what_only_the_server_says_is_not_part_of_what_was_asked() -> None:
    raw = _pod()
    raw["status"] = {"phase": "Running"}
    raw["metadata"] |= {"uid": "u", "generation": 4, "annotations": {LAST_APPLIED: "{}", "mine": "1"}}
    asked = desired(parse_object(raw, "t"))
    assert asked["metadata"] == {"name": "x", "namespace": "a", "annotations": {"mine": "1"}}
    assert "status" not in asked


def test_applying_the_same_again_changes_nothing() -> None:
    live = _stored(_pod(), nodeName="n1")
    assert stamped(merge(live, _pod(), "Pod"), _pod()) == live


def test_labels_of_others_stay_and_those_that_left_the_file_go() -> None:
    old = _pod()
    old["metadata"]["labels"] = {"gone": "1", "kept": "1"}
    live = _stored(old)
    live["metadata"]["labels"]["by-hand"] = "1"
    new = _pod()
    new["metadata"]["labels"] = {"kept": "2", "new": "1"}
    assert merge(live, new, "Pod")["metadata"]["labels"] == {"kept": "2", "new": "1", "by-hand": "1"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"nodeName": "n2"}, "spec.nodeName"),
        ({"containers": [{"name": "c", "command": ["false"]}]}, "spec.containers[0].command[0]"),
        ({"containers": [{"name": "d", "command": ["true"]}]}, "spec.containers[0].name"),
        ({"serviceAccountName": "s"}, "spec.serviceAccountName"),
        ({"restartPolicy": "Never"}, "spec.restartPolicy"),
    ],
)
def test_a_pods_spec_may_not_change(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Refused, match="Forbidden") as refusal:
        merge(_stored(_pod(), nodeName="n1"), _pod(**changes), "Pod")
    assert refusal.value.what == field


def test_a_pods_image_may_change() -> None:
    new = _pod(containers=[{"name": "c", "image": "other", "command": ["true"]}])
    assert merge(_stored(_pod()), new, "Pod")["spec"]["containers"][0]["image"] == "other"


def test_a_pods_wanted_addresses_may_not_change() -> None:
    new = _pod()
    new["metadata"]["annotations"] = {"ambient.mesh/pod-ips": "10.0.0.1"}
    with pytest.raises(Refused, match="pod-ips"):
        merge(_stored(_pod()), new, "Pod")


def test_a_node_keeps_its_range() -> None:
    node: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {}}
    live = _stored(node, podCIDR="10.128.1.0/24", podCIDRs=["10.128.1.0/24"])
    assert merge(live, node, "Node")["spec"] == live["spec"]
    with pytest.raises(Refused, match="given by the lab"):
        merge(live, {**node, "spec": {"podCIDR": "10.128.2.0/24"}}, "Node")


def test_a_service_keeps_its_addresses() -> None:
    live = _stored(_service(), clusterIP="10.0.0.1", clusterIPs=["10.0.0.1"], ipFamilies=["IPv4"])
    merged = merge(live, _service(ports=[{"port": 81}]), "Service")
    assert merged["spec"] == {
        "ports": [{"port": 81}],
        "clusterIP": "10.0.0.1",
        "clusterIPs": ["10.0.0.1"],
        "ipFamilies": ["IPv4"],
    }
    with pytest.raises(Refused, match="may not change once set"):
        merge(live, _service(clusterIP="10.0.0.2"), "Service")
    with pytest.raises(Refused, match="may not change once set"):
        merge(live, _service(clusterIP="None"), "Service")


@pytest.mark.parametrize(
    ("spec", "versions"),
    [
        ({}, (4,)),
        ({"ipFamilyPolicy": "PreferDualStack"}, (4, 6)),
        ({"ipFamilies": ["IPv6", "IPv4"]}, (6, 4)),
        ({"clusterIP": "None"}, ()),
        ({"ipFamilyPolicy": "SingleStack"}, (4,)),
        ({"ipFamilies": ["IPv6"]}, (6,)),
        ({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}, (6,)),
        ({"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "RequireDualStack"}, (6, 4)),
        ({"ipFamilies": ["IPv6"], "ipFamilyPolicy": "PreferDualStack"}, (6, 4)),
    ],
)
def test_a_service_gets_the_families_it_asks_for(spec: dict[str, Any], versions: tuple[int, ...]) -> None:
    assert families(_parsed_service(**spec)) == versions


def test_labels_are_set_removed_and_checked() -> None:
    live = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"x": "1", "y": "1"}}}
    record = parse_object(live, "t")
    changed = labelled(live, record, ["x=2", "y-", "z="], overwrite=True)
    assert changed["metadata"]["labels"] == {"x": "2", "z": ""}
    with pytest.raises(InvalidInput):
        labelled(live, record, ["z=not valid"])


def test_a_label_with_another_value_is_changed_only_when_that_is_said() -> None:
    live = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"x": "1"}}}
    record = parse_object(live, "t")
    assert labelled(live, record, ["x=1", "y=2"])["metadata"]["labels"] == {"x": "1", "y": "2"}
    with pytest.raises(Refused, match=r"labels\[x\].*'1'.*--overwrite"):
        labelled(live, record, ["y=2", "x=2"])


def test_objects_are_named_as_kubectl_names_them() -> None:
    raw = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "p"}}
    assert shown(parse_object(raw, "t")) == "authorizationpolicy.security.istio.io/p"
    entry = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": {"name": "vm"}}
    found = parse_object({**entry, "spec": {"address": "10.0.0.1"}}, "t")
    assert shown(found) == "workloadentry.networking.istio.io/vm"
    assert shown(parse_object(_pod(), "t")) == "pod/x"
