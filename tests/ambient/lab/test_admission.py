from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import MeshError, Refused
from ambient.kube.objects import Node, Pod, Records, Service, parse_object
from ambient.lab.addresses import Plan
from ambient.lab.admission import Cluster
from ambient.lab.apply import desired
from ambient.lab.names import Names


def _raw(kind: str, name: str, namespace: str = "a", **more: Any) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {}) | more.pop("metadata", {})
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


def _pod(name: str, **more: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "command": ["true"]}], **more.pop("spec", {})}
    return _raw("Pod", name, spec=spec, **more)


def _service(name: str, **spec: Any) -> dict[str, Any]:
    return _raw("Service", name, spec={"ports": [{"port": 80}], **spec})


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster.of(Names("t"), Plan(0), Records())
    namespace = cluster.remember(parse_object(_raw("Namespace", "a", ""), "t"))
    cluster.default_account(namespace)  # type: ignore[arg-type]
    return cluster


def _admit(cluster: Cluster, raw: dict[str, Any]) -> Any:
    record = parse_object(raw, "t")
    return cluster.admit(record, desired(record))


def test_a_pod_gets_a_node_and_addresses_of_that_node(cluster: Cluster) -> None:
    pod = _admit(cluster, _pod("x", spec={"nodeName": "n7"}))
    assert isinstance(pod, Pod)
    assert [str(ip) for ip in pod.ips] == ["10.64.1.2", "fdab:0:0:1::2"]
    assert str(pod.host_ip) == "10.128.0.1"
    assert [node.name for node in cluster.new_nodes] == ["n7"]


def test_pods_of_one_apply_get_different_addresses(cluster: Cluster) -> None:
    pods = [_admit(cluster, _pod(f"x{i}", spec={"nodeName": "n1"})) for i in range(5)]
    assert len({ip for pod in pods for ip in pod.ips}) == 10


def test_pods_that_name_no_node_are_spread_over_two(cluster: Cluster) -> None:
    nodes = [_admit(cluster, _pod(f"x{i}")).node_name for i in range(4)]
    assert nodes == ["n1", "n2", "n1", "n2"]


def test_a_refused_pod_makes_no_node(cluster: Cluster) -> None:
    with pytest.raises(Refused):
        _admit(cluster, _pod("x", spec={"nodeName": "n9", "serviceAccountName": "nobody"}))
    wanted = {"annotations": {"ambient.mesh/pod-ips": "10.128.0.1"}}
    with pytest.raises(Refused):
        _admit(cluster, _pod("x", spec={"nodeName": "n9"}, metadata=wanted))
    assert cluster.new_nodes == []
    assert cluster.all(Node) == []


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (_pod("x", metadata={"namespace": "none"}), "not found"),
        (_pod("x", spec={"initContainers": [{"name": "i"}]}), "initContainers"),
        (_pod("x", spec={"containers": [{"name": "c"}]}), "command"),
        (_pod("x", metadata={"annotations": {"ambient.mesh/pod-ips": "10.192.0.99"}}), "range of nodes or services"),
        (_pod("x", metadata={"annotations": {"ambient.mesh/pod-ips": "10.1.1.1,10.1.1.2"}}), "one address of each"),
        (_pod("x", metadata={"annotations": {"ambient.mesh/pod-ips": "fe80::5"}}), "cannot be a pod's address"),
        (_raw("Node", "n7", "", spec={"podCIDRs": ["10.128.7.0/24"]}), "given by the lab"),
        (_raw("Node", "n7", "", spec={"podCIDR": "10.128.7.0/24"}), "given by the lab"),
        (_service("s", clusterIP="10.192.0.10"), "not a free address"),
        (_service("s", clusterIP="10.193.0.1"), "not a free address"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(cluster: Cluster, raw: dict[str, Any], why: str) -> None:
    before = dict(cluster.objects)
    with pytest.raises(MeshError, match=why):
        _admit(cluster, raw)
    assert cluster.objects == before


def test_nothing_new_comes_into_a_namespace_that_is_going(cluster: Cluster) -> None:
    going = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    cluster.remember(parse_object(_raw("Namespace", "a", "", metadata=going), "t"))
    with pytest.raises(Refused, match="is being deleted"):
        _admit(cluster, _pod("x"))


def test_no_two_objects_share_an_address(cluster: Cluster) -> None:
    annotations = {"annotations": {"ambient.mesh/pod-ips": "172.30.1.1"}}
    _admit(cluster, _pod("one", metadata=annotations))
    with pytest.raises(Refused, match="address of pod a/one"):
        _admit(cluster, _pod("two", metadata=annotations))
    _admit(cluster, _service("s", clusterIP="10.192.9.9"))
    with pytest.raises(Refused, match="address of service s"):
        _admit(cluster, _service("t", clusterIP="10.192.9.9"))


def test_a_service_gets_addresses_of_both_families_when_it_asks(cluster: Cluster) -> None:
    service = _admit(cluster, _service("s", ipFamilyPolicy="PreferDualStack"))
    assert isinstance(service, Service)
    assert [str(ip) for ip in service.cluster_ips] == ["10.192.1.0", "fdab:0:0:ffff::100"]
    assert [str(ip) for ip in _admit(cluster, _service("t")).cluster_ips] == ["10.192.1.1"]


def test_a_service_with_two_chosen_addresses_needs_both_families(cluster: Cluster) -> None:
    both = ["10.192.7.7", "fdab:0:0:ffff::777"]
    service = _admit(cluster, _service("s", clusterIP=both[0], clusterIPs=both))
    assert isinstance(service, Service)
    assert ([str(ip) for ip in service.cluster_ips], service.ip_family_policy) == (both, "RequireDualStack")


def test_a_chosen_service_address_stays_alone(cluster: Cluster) -> None:
    assert [str(ip) for ip in _admit(cluster, _service("s", clusterIP="10.192.7.7")).cluster_ips] == ["10.192.7.7"]


def test_a_host_network_pod_has_its_nodes_addresses(cluster: Cluster) -> None:
    pod = _admit(cluster, _pod("x", spec={"nodeName": "n1", "hostNetwork": True}))
    assert [str(ip) for ip in pod.ips] == ["10.128.0.1", "fdab:0:0:fffe::1"]
    assert _admit(cluster, _pod("y", spec={"nodeName": "n1", "hostNetwork": True})).ips == pod.ips
