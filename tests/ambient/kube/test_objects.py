"""What all kinds share: versions, names, labels; unknown kinds; the small kinds."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.metadata import timestamp
from ambient.kube.objects import KINDS, Condition, Namespace, Node, ServiceAccount, parse_object
from ambient.kube.records import Records, record_key
from tests.support.builders import raw, raw_pod, records
from tests.support.refusals import REMOVE, Bad, changed, refused

ACCOUNT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ServiceAccount",
    "metadata": {
        "name": "till",
        "namespace": "shop",
        "uid": "u-1",
        "generation": 3,
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"app.kubernetes.io/name": "till", "empty": ""},
        "annotations": {"Example.com/Any": "thing\nat all"},
    },
}
NAMESPACE = raw("Namespace", "shop", labels={"istio.io/dataplane-mode": "ambient"})

RULES = [
    Bad("kind", "Deployment", "'Deployment' is not supported; supported are Namespace"),
    Bad("kind", REMOVE, "is required"),
    Bad("kind", 1, "expected a string"),
    Bad("apiVersion", REMOVE, "is required"),
    Bad("apiVersion", "v2", "'v2' does not have ServiceAccount; expected v1"),
    Bad("apiVersion", 1, "expected a string, found the number 1 (quote it)"),
    Bad("metadata", REMOVE, "is required"),
    Bad("metadata", [], "expected a mapping"),
    Bad("spec", {}, "unknown field"),
    Bad("metadata.name", REMOVE, "is required"),
    Bad("metadata.name", "", "not a DNS name"),
    Bad("metadata.name", "Till", "not a DNS name"),
    Bad("metadata.name", "a..b", "not a DNS name"),
    Bad("metadata.name", "x" * 254, "longer than 253"),
    Bad("metadata.name", 7, "expected a string"),
    Bad("metadata.namespace", "a.b", "not a DNS label"),
    Bad("metadata.namespace", "x" * 64, "longer than 63"),
    Bad("metadata.lables", {}, "unknown field"),
    Bad("metadata.labels", [], "expected a mapping"),
    Bad("metadata.labels", {"a b": "x"}, "not a valid key", at="metadata.labels[a b]"),
    Bad("metadata.labels", {"/a": "x"}, "prefix before '/'", at="metadata.labels[/a]"),
    Bad("metadata.labels", {"A.b/c": "x"}, "prefix before '/'", at="metadata.labels[A.b/c]"),
    Bad("metadata.labels", {"x" * 64: ""}, "not a valid key", at=f"metadata.labels[{'x' * 64}]"),
    Bad("metadata.labels", {"a": "x" * 64}, "longer than 63", at="metadata.labels[a]"),
    Bad("metadata.labels", {"a": "-x"}, "not a label value", at="metadata.labels[a]"),
    Bad("metadata.labels", {"a": True}, "found the boolean true (quote it)", at="metadata.labels[a]"),
    Bad("metadata.labels", {1: "x"}, "the key 1 is not a string"),
    Bad("metadata.annotations", {"a b": "x"}, "not a valid key", at="metadata.annotations[a b]"),
    Bad("metadata.annotations", {"a": "\ud800"}, "not valid Unicode", at="metadata.annotations[a]"),
    Bad("metadata.annotations", {"\ud800": "x"}, "is not valid Unicode"),
    Bad("metadata.annotations", {"a": 1}, "expected a string", at="metadata.annotations[a]"),
    Bad("metadata.annotations", {"a": "x" * (256 * 1024)}, "longer than 262144 bytes"),
    Bad("metadata.generation", "3", "expected an integer"),
    Bad("metadata.generation", -1, "in range"),
    Bad("metadata.creationTimestamp", "yesterday", "not an RFC 3339 time"),
    Bad("metadata.deletionTimestamp", "soon", "not an RFC 3339 time"),
    Bad("status", {"conditions": [{"status": "True"}]}, "is required", at="status.conditions[0].type"),
    Bad("status", {"conditions": {}}, "expected a list", at="status.conditions"),
]


@pytest.mark.parametrize("bad", RULES, ids=lambda bad: f"{bad.path}={str(bad.value)[:20]!a}")
def test_an_invalid_object_is_refused_with_field_and_reason(bad: Bad) -> None:
    refused(ACCOUNT, bad)


@pytest.mark.parametrize(
    ("base", "bad"),
    [
        (NAMESPACE, Bad("metadata.namespace", "x", "a Namespace does not live in a namespace")),
        (NAMESPACE, Bad("metadata.name", "a.b", "not a DNS label")),
        (NAMESPACE, Bad("spec", {"x": 1}, "unknown field", at="spec.x")),
        (raw("Node", "n1"), Bad("metadata.namespace", "x", "a Node does not live in a namespace")),
        (raw("Node", "n1", {}), Bad("spec.podCIDRs", ["x"], "not an IP address or CIDR", at="spec.podCIDRs[0]")),
        (raw("Node", "n1", {}), Bad("spec.podCIDR", "x", "not an IP address or CIDR")),
        (raw("Node", "n1", {}), Bad("spec.nodeCIDR", "x", "unknown field")),
        (
            raw("Node", "n1"),
            Bad(
                "status",
                {"addresses": [{"type": "InternalIP", "address": "x"}]},
                "not an IP",
                at="status.addresses[0].address",
            ),
        ),
    ],
    ids=lambda value: f"{value.path}" if isinstance(value, Bad) else "",
)
def test_the_small_kinds_have_their_rules(base: dict[str, Any], bad: Bad) -> None:
    refused(base, bad)


def test_the_error_reads_as_file_document_object_field_reason() -> None:
    bad = changed(raw_pod("x"), "spec.containers.0.ports.0.containerPort", 99999)
    with pytest.raises(InvalidInput) as caught:
        parse_object(bad, "pods.yaml: document 2")
    assert str(caught.value) == (
        "pods.yaml: document 2: Pod default/x: spec.containers[0].ports[0].containerPort: "
        "99999 is not a port (1..65535)"
    )


@pytest.mark.parametrize("value", [None, [], "Pod", 1])
def test_what_is_no_mapping_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="expected a mapping"):
        parse_object(value, "here")


def test_a_generated_name_is_refused() -> None:
    bad = changed(changed(ACCOUNT, "metadata.name", REMOVE), "metadata.generateName", "till-")
    with pytest.raises(InvalidInput, match="give the object a name"):
        parse_object(bad, "here")


def test_what_all_records_have_is_read() -> None:
    account = parse_object(ACCOUNT, "here")
    assert isinstance(account, ServiceAccount)
    assert (account.kind, account.namespace, account.name) == ("ServiceAccount", "shop", "till")
    assert (account.uid, account.generation, account.created) == ("u-1", 3, "2026-01-02T03:04:05Z")
    assert account.labels["app.kubernetes.io/name"] == "till"
    assert account.annotations == {"Example.com/Any": "thing\nat all"}
    assert account.raw is ACCOUNT
    assert account.key == "ServiceAccount/shop/till"
    assert not account.deleting
    assert parse_object(changed(ACCOUNT, "metadata.deletionTimestamp", "2026-01-02T03:04:05Z"), "x").deleting


def test_null_counts_as_absent() -> None:
    account = parse_object(changed(changed(ACCOUNT, "metadata.labels", None), "metadata.creationTimestamp", None), "x")
    assert (account.labels, account.created) == ({}, "")


def test_a_namespace_and_a_node_are_cluster_wide() -> None:
    assert parse_object(NAMESPACE, "x").key == "Namespace/_/shop" == record_key("Namespace", "", "shop")
    node = parse_object(
        {
            **raw("Node", "n1", {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd01::/64"]}),
            "status": {
                "addresses": [{"type": "InternalIP", "address": "172.16.0.1"}, {"type": "Hostname", "address": "n1"}]
            },
        },
        "x",
    )
    assert isinstance(node, Node)
    assert (node.addresses, node.pod_cidrs) == ((ip_address("172.16.0.1"),), ("10.1.0.0/24", "fd01::/64"))


def test_conditions_are_read() -> None:
    condition = {"type": "T", "status": "False", "reason": "R", "message": "M", "lastTransitionTime": "x"}
    account = parse_object({**ACCOUNT, "status": {"conditions": [condition]}}, "x")
    assert account.condition("T") == Condition("T", "False", "R", "M")
    assert account.condition("U") is None


def test_a_snapshot_gives_records_by_kind_in_order_of_key() -> None:
    snapshot = records(raw("Namespace", "b"), raw("Namespace", "a"), raw_pod("p"))
    assert [one.name for one in snapshot.of(Namespace)] == ["a", "b"]
    assert snapshot.find(Namespace, "", "a") is not None
    assert snapshot.find(Namespace, "", "c") is None
    assert snapshot.find(ServiceAccount, "default", "p") is None
    assert Records().of(Namespace) == []


def test_the_supported_kinds() -> None:
    assert set(KINDS) == {
        *("Namespace", "ServiceAccount", "ConfigMap", "Secret", "Node", "Pod", "Service"),
        *("AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"),
        *("EndpointSlice", "ServiceEntry", "WorkloadEntry", "WorkloadGroup", "DestinationRule"),
        *("Gateway", "GatewayClass", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "ReferenceGrant"),
        *("VirtualService", "BackendTLSPolicy"),
        "Telemetry",
    }


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("2026-01-02T03:04:05Z", True),
        ("2026-01-02T03:04:05.123456789Z", True),
        ("2026-01-02T03:04:05+02:00", True),
        ("2026-01-02", False),
        ("2026-01-02 03:04:05Z", False),
        ("", False),
    ],
)
def test_times(text: str, fine: bool) -> None:
    assert (timestamp(text) == "") is fine
