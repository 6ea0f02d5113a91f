"""Pods: what is read, and every rule that refuses one."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.objects import Container, ContainerPort, EnvVar, HttpGet, Pod, Probe, TcpSocket, parse_object
from tests.support.refusals import REMOVE, Bad, changed, refused

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web"}, "annotations": {}},
    "spec": {
        "nodeName": "n1",
        "serviceAccountName": "web",
        "hostNetwork": False,
        "hostname": "web",
        "subdomain": "webs",
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": 5,
        "containers": [
            {
                "name": "main",
                "image": "ignored",
                "command": ["python3", "-m", "http.server"],
                "args": ["8080"],
                "workingDir": "/srv",
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
                "ports": [
                    {"name": "http", "containerPort": 8080},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                ],
                "readinessProbe": {
                    "httpGet": {"path": "/ready", "port": "http", "httpHeaders": [{"name": "X-A", "value": "b"}]},
                    "initialDelaySeconds": 1,
                    "periodSeconds": 2,
                    "timeoutSeconds": 3,
                    "successThreshold": 4,
                    "failureThreshold": 5,
                },
                "livenessProbe": {"tcpSocket": {"port": 8080}},
            },
            {"name": "side"},
        ],
    },
    "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "hostIP": "172.16.0.1"},
}
CONTAINER = "spec.containers.0"
PROBE = f"{CONTAINER}.readinessProbe"

RULES = [
    Bad("spec", REMOVE, "is required"),
    Bad("spec", [], "expected a mapping, found a list"),
    Bad("spec.nodeNme", "n1", "unknown field"),
    Bad("spec.nodeName", "N1", "not a DNS name"),
    Bad("spec.nodeName", 7, "expected a string, found the number 7 (quote it)"),
    Bad("spec.serviceAccountName", "Web", "not a DNS name"),
    Bad("spec.hostNetwork", "yes", "expected true or false"),
    Bad("spec.hostname", "a.b", "not a DNS label"),
    Bad("spec.subdomain", "-a", "not a DNS label"),
    Bad("spec.restartPolicy", "Sometimes", "is not one of Always, OnFailure, Never"),
    Bad("spec.terminationGracePeriodSeconds", -1, "in range"),
    Bad("spec.containers", REMOVE, "is required"),
    Bad("spec.containers", [], "at least one container"),
    Bad("spec.containers", {}, "expected a list"),
    Bad("spec.containers.1.name", "main", "two entries are called 'main'", at="spec.containers"),
    Bad("spec.containers.1.name", "Main", "not a DNS label"),
    Bad("spec.containers.1.name", "x" * 64, "longer than 63"),
    Bad("spec.containers.1.name", REMOVE, "is required"),
    Bad("spec.containers.1", "main", "expected a mapping"),
    Bad(f"{CONTAINER}.comand", [], "unknown field"),
    Bad(f"{CONTAINER}.envFrom", [], "unknown field"),
    Bad(f"{CONTAINER}.command", "sleep 1", "expected a list, found a string"),
    Bad(f"{CONTAINER}.command.0", 1, "expected a string, found the number 1 (quote it)"),
    Bad(f"{CONTAINER}.command.0", "a\x00b", "may not hold NUL"),
    Bad(f"{CONTAINER}.args.0", 8080, "expected a string, found the number 8080 (quote it)"),
    Bad(f"{CONTAINER}.workingDir", "srv", "not an absolute path"),
    Bad(f"{CONTAINER}.env.0.value", True, "expected a string, found the boolean true (quote it)"),
    Bad(f"{CONTAINER}.env.0.name", "1A", "name of an environment variable"),
    Bad(f"{CONTAINER}.env.0.name", "A=B", "name of an environment variable"),
    Bad(f"{CONTAINER}.env.0.valueFrom", {"fieldRef": {"fieldPath": "metadata.name"}}, "beside value"),
    Bad(f"{CONTAINER}.env.1.valueFrom", {"secretKeyRef": {}}, "secretKeyRef is not supported"),
    Bad(f"{CONTAINER}.env.1.valueFrom", {"configMapKeyRef": {}}, "configMapKeyRef is not supported"),
    Bad(f"{CONTAINER}.env.1.valueFrom.fieldRef.fieldPath", "spec.x", "is not one of metadata.name"),
    Bad(f"{CONTAINER}.ports.0.containerPort", 99999, "99999 is not a port (1..65535)"),
    Bad(f"{CONTAINER}.ports.0.containerPort", 0, "0 is not a port"),
    Bad(f"{CONTAINER}.ports.0.containerPort", "8080", "expected an integer, found a string"),
    Bad(f"{CONTAINER}.ports.0.containerPort", True, "expected an integer, found the boolean true"),
    Bad(f"{CONTAINER}.ports.0.containerPort", REMOVE, "is required"),
    Bad(f"{CONTAINER}.ports.0.name", "a-very-long-name", "1..15 characters"),
    Bad(f"{CONTAINER}.ports.0.name", "80", "at least one letter"),
    Bad(f"{CONTAINER}.ports.0.name", "a--b", "single '-'"),
    Bad(f"{CONTAINER}.ports.0.name", "HTTP", "not a port name"),
    Bad(f"{CONTAINER}.ports.0.protocol", "tcp", "is not one of TCP, UDP, SCTP"),
    Bad(f"{CONTAINER}.ports.1.name", "http", "two entries are called 'http'", at="spec.containers[0].ports"),
    Bad(f"{PROBE}.exec", {"command": ["true"]}, "not supported; use httpGet or tcpSocket"),
    Bad(f"{PROBE}.grpc", {"port": 1}, "not supported; use httpGet or tcpSocket"),
    Bad(f"{PROBE}.httpGet", REMOVE, "exactly one of httpGet and tcpSocket", at="spec.containers[0].readinessProbe"),
    Bad(f"{PROBE}.httpGet.port", "9" * 5_000, "is not a port"),
    Bad(f"{PROBE}.tcpSocket", {"port": 1}, "exactly one of", at="spec.containers[0].readinessProbe"),
    Bad(f"{PROBE}.httpGet.port", "https", "no port of this container is called 'https'"),
    Bad(f"{PROBE}.httpGet.port", 0, "0 is not a port"),
    Bad(f"{PROBE}.httpGet.port", "70000", "70000 is not a port"),
    Bad(f"{PROBE}.httpGet.port", REMOVE, "is required"),
    Bad(f"{PROBE}.httpGet.path", "ready", "not an absolute path"),
    Bad(f"{PROBE}.httpGet.scheme", "http", "is not one of HTTP, HTTPS"),
    Bad(f"{PROBE}.httpGet.httpHeaders.0.name", "a b", "not an HTTP header name"),
    Bad(f"{PROBE}.httpGet.httpHeaders.0.value", "a\r\nX: y", "line breaks"),
    Bad(f"{PROBE}.periodSeconds", 0, "0 is not in range (1.."),
    Bad(f"{PROBE}.timeoutSeconds", 0, "0 is not in range (1.."),
    Bad(f"{PROBE}.initialDelaySeconds", -1, "-1 is not in range (0.."),
    Bad(f"{PROBE}.failureThreshold", 0, "0 is not in range (1.."),
    Bad(f"{PROBE}.successThreshold", 0, "0 is not in range (1.."),
    Bad(f"{CONTAINER}.livenessProbe.successThreshold", 2, "must be 1 for liveness"),
    Bad(f"{CONTAINER}.livenessProbe.tcpSocket.prt", 2, "unknown field"),
    Bad("status.phase", "Sleeping", "is not one of Pending"),
    Bad("status.podIPs.0.ip", "10.0.0", "not an IP address", at="status.podIPs[0]"),
    Bad("status.hostIP", "host", "not an IP address"),
    Bad(
        "status.conditions",
        [{"type": "Ready", "status": "yes"}],
        "is not one of True",
        at="status.conditions[0].status",
    ),
]


@pytest.mark.parametrize("bad", RULES, ids=lambda bad: f"{bad.path}={str(bad.value)[:20]!a}")
def test_an_invalid_pod_is_refused_with_field_and_reason(bad: Bad) -> None:
    refused(POD, bad)


def parsed(raw: dict[str, Any], **options: bool) -> Pod:
    pod = parse_object(raw, "test", **options)
    assert isinstance(pod, Pod)
    return pod


def test_a_pod_is_read() -> None:
    pod = parsed(POD)
    assert (pod.key, pod.labels, pod.node_name, pod.service_account) == ("Pod/shop/web-0", {"app": "web"}, "n1", "web")
    assert (pod.hostname, pod.subdomain, pod.restart_policy, pod.grace_s) == ("web", "webs", "OnFailure", 5)
    assert pod.ips == (ip_address("10.0.0.1"), ip_address("fd00::1"))
    assert (pod.phase, pod.host_ip) == ("Running", ip_address("172.16.0.1"))
    assert pod.containers == (
        Container(
            name="main",
            image="ignored",
            command=("python3", "-m", "http.server"),
            args=("8080",),
            env=(EnvVar("A", "1"), EnvVar("IP", field_path="status.podIP")),
            working_dir="/srv",
            ports=(ContainerPort(8080, "http"), ContainerPort(53, "dns", "UDP")),
            readiness=Probe(
                action=HttpGet(8080, "/ready", headers=(("X-A", "b"),)),
                initial_delay_s=1,
                period_s=2,
                timeout_s=3,
                success_threshold=4,
                failure_threshold=5,
            ),
            liveness=Probe(action=TcpSocket(8080)),
        ),
        Container(name="side"),
    )


def test_a_pod_with_the_least_has_the_defaults_of_kubernetes() -> None:
    raw = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}}
    pod = parsed(raw)
    assert (pod.namespace, pod.service_account, pod.restart_policy, pod.grace_s) == ("default", "default", "Always", 30)
    assert (pod.ips, pod.ready, pod.phase, pod.owner, pod.host_network) == ((), False, "", None, False)


@pytest.mark.parametrize("status", ["True", "False", "Unknown"])
def test_a_pod_is_ready_when_its_condition_says_so(status: str) -> None:
    raw = changed(POD, "status.conditions", [{"type": "Ready", "status": status}])
    assert parsed(raw).ready is (status == "True")
    assert parsed(changed(raw, "status.ready", True)).ready


def test_the_lab_annotation_names_wanted_addresses() -> None:
    raw = changed(POD, "metadata.annotations", {"ambient.mesh/pod-ips": "10.1.0.1, fd00::1"})
    assert parsed(raw).wanted_ips == (ip_address("10.1.0.1"), ip_address("fd00::1"))


def test_a_wanted_address_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"metadata.annotations\[ambient.mesh/pod-ips\]: 'x' is not an IP address"):
        parsed(changed(POD, "metadata.annotations", {"ambient.mesh/pod-ips": "10.1.0.1,x"}))


def test_named_ports_are_found_by_name_and_protocol() -> None:
    pod = parsed(POD)
    assert (pod.named_port("http", "TCP"), pod.named_port("dns", "UDP")) == (8080, 53)
    assert (pod.named_port("dns", "TCP"), pod.named_port("x", "TCP")) == (None, None)


def test_the_controller_is_the_owner() -> None:
    owners = [
        {"kind": "X", "name": "not"},
        {"kind": "ReplicaSet", "name": "web-5d", "controller": True},
    ]
    assert parsed(changed(POD, "metadata.ownerReferences", owners)).owner == ("ReplicaSet", "web-5d")


def test_a_single_pod_ip_is_read_where_the_list_is_missing() -> None:
    assert parsed(changed(POD, "status", {"podIP": "10.0.0.9"})).ips == (ip_address("10.0.0.9"),)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{PROBE}", {"exec": {"command": ["true"]}}),
        (f"{CONTAINER}.env.1.valueFrom", {"secretKeyRef": {"name": "s", "key": "k"}}),
        (f"{CONTAINER}.envFrom", [{"configMapRef": {"name": "x"}}]),
        ("spec.someFutureField", 1),
    ],
)
def test_what_only_the_lab_cannot_do_is_passed_over_in_pods_of_a_live_server(path: str, value: Any) -> None:
    raw = changed(POD, path, value)
    with pytest.raises(InvalidInput):
        parsed(raw)
    assert parsed(raw, observed=True).name == "web-0"


def test_an_observed_pod_is_still_checked_where_it_matters() -> None:
    with pytest.raises(InvalidInput):
        parsed(changed(POD, f"{CONTAINER}.ports.0.containerPort", 0), observed=True)
