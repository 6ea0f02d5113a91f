"""Services: what is read, and every rule that refuses one."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from ambient.kube.objects import Service, ServicePort, parse_object
from tests.support.refusals import REMOVE, Bad, changed, refused

SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {
        "type": "ClusterIP",
        "clusterIP": "10.96.0.1",
        "clusterIPs": ["10.96.0.1", "fd96::1"],
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "PreferDualStack",
        "selector": {"app": "web"},
        "ports": [
            {"name": "http", "port": 80, "targetPort": "http", "appProtocol": "kubernetes.io/h2c", "nodePort": 30080},
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 5353},
            {"name": "plain", "port": 9000},
        ],
        "publishNotReadyAddresses": True,
        "internalTrafficPolicy": "Local",
        "externalTrafficPolicy": "Local",
        "trafficDistribution": "PreferClose",
        "sessionAffinity": "ClientIP",
    },
}
EXTERNAL: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "ext"},
    "spec": {"type": "ExternalName", "externalName": "api.example.com."},
}
ONE_PORT = changed(SERVICE, "spec.ports", [{"port": 80}])

RULES = [
    Bad("metadata.name", "0web", "not a DNS label that starts with a letter"),
    Bad("metadata.name", "web.x", "not a DNS label"),
    Bad("metadata.name", "x" * 64, "longer than 63"),
    Bad("spec", REMOVE, "is required"),
    Bad("spec.selecter", {}, "unknown field"),
    Bad("spec.type", "clusterip", "is not one of ClusterIP"),
    Bad("spec.selector", ["app"], "expected a mapping"),
    Bad("spec.selector.app", "a b", "not a label value", at="spec.selector[app]"),
    Bad("spec.selector.app", 1, "expected a string, found the number 1", at="spec.selector[app]"),
    Bad("spec.ports", [], "at least one port"),
    Bad("spec.ports", {}, "expected a list"),
    Bad("spec.ports.0.port", 0, "0 is not a port"),
    Bad("spec.ports.0.port", 65536, "65536 is not a port"),
    Bad("spec.ports.0.port", "80", "expected an integer"),
    Bad("spec.ports.0.port", REMOVE, "is required"),
    Bad("spec.ports.0.targetPort", 0, "0 is not a port"),
    Bad("spec.ports.0.targetPort", "8080", "at least one letter"),
    Bad("spec.ports.0.targetPort", 1.5, "expected an integer, found the number 1.5"),
    Bad("spec.ports.0.name", REMOVE, "with several ports every one needs a name", at="spec.ports"),
    Bad("spec.ports.0.name", "HTTP", "not a DNS label"),
    Bad("spec.ports.1.name", "http", "two ports are called 'http'", at="spec.ports"),
    Bad("spec.ports.2.port", 80, "port 80/TCP is there twice", at="spec.ports"),
    Bad("spec.ports.0.protocol", "HTTP", "is not one of TCP, UDP, SCTP"),
    Bad("spec.ports.0.appProtocol", "a b", "not a valid key"),
    Bad("spec.ports.0.nodePort", 70000, "in range"),
    Bad("spec.ports.0.target", 1, "unknown field"),
    Bad("spec.clusterIP", "10.96.0.2", "first entry must equal clusterIP", at="spec.clusterIPs"),
    Bad("spec.clusterIPs", ["10.96.0.1", "10.96.0.2"], "different families"),
    Bad("spec.clusterIPs", ["10.96.0.1", "fd96::1", "fd96::2"], "at most one address of each family"),
    Bad("spec.clusterIPs", ["10.96.0.1", "None"], "'None' cannot stand beside addresses"),
    Bad("spec.clusterIPs", ["10.96.0.1", "ten"], "'ten' is not an IP address"),
    Bad("spec.ipFamilies", ["ipv4"], "is not one of IPv4, IPv6", at="spec.ipFamilies[0]"),
    Bad("spec.ipFamilies", ["IPv4", "IPv4"], "may be named once"),
    Bad("spec.ipFamilies", ["IPv6", "IPv4"], "IPv6 does not fit the address 10.96.0.1"),
    Bad("spec.ipFamilyPolicy", "Dual", "is not one of SingleStack"),
    Bad("spec.ipFamilyPolicy", "SingleStack", "one family only"),
    Bad("spec.internalTrafficPolicy", "Node", "is not one of Cluster, Local"),
    Bad("spec.externalTrafficPolicy", "Node", "is not one of Cluster, Local"),
    Bad("spec.trafficDistribution", "Any", "is not one of PreferClose"),
    Bad("spec.sessionAffinity", "Cookie", "is not one of None, ClientIP"),
    Bad("spec.publishNotReadyAddresses", 1, "expected true or false"),
]


@pytest.mark.parametrize("bad", RULES, ids=lambda bad: f"{bad.path}={str(bad.value)[:30]!a}")
def test_an_invalid_service_is_refused_with_field_and_reason(bad: Bad) -> None:
    refused(SERVICE, bad)


@pytest.mark.parametrize(
    "bad",
    [
        Bad("spec.externalName", REMOVE, "is required"),
        Bad("spec.externalName", "a_b", "not a DNS name"),
        Bad("spec.clusterIP", "10.96.0.1", "has no cluster address"),
    ],
    ids=lambda bad: bad.path,
)
def test_an_invalid_external_name_is_refused(bad: Bad) -> None:
    refused(EXTERNAL, bad)


def test_only_a_cluster_ip_service_can_be_headless() -> None:
    headless = changed(changed(ONE_PORT, "spec.clusterIPs", REMOVE), "spec.clusterIP", "None")
    headless = changed(headless, "spec.ipFamilies", REMOVE)
    refused(headless, Bad("spec.type", "NodePort", "cannot be headless", at="spec.clusterIP"))


def parsed(raw: dict[str, Any]) -> Service:
    service = parse_object(raw, "test")
    assert isinstance(service, Service)
    return service


def test_a_service_is_read() -> None:
    service = parsed(SERVICE)
    assert service.ports == (
        ServicePort(80, "http", "http", "TCP", "kubernetes.io/h2c", 30080),
        ServicePort(53, 5353, "dns", "UDP"),
        ServicePort(9000, 9000, "plain"),
    )
    assert service.cluster_ips == (ip_address("10.96.0.1"), ip_address("fd96::1"))
    assert (service.ip_families, service.ip_family_policy) == (("IPv4", "IPv6"), "PreferDualStack")
    assert (service.headless, service.publish_not_ready, service.internal_traffic_policy) == (False, True, "Local")
    assert (service.traffic_distribution, service.session_affinity, service.selector) == (
        "PreferClose",
        "ClientIP",
        {"app": "web"},
    )


@pytest.mark.parametrize(
    ("ips", "headless", "count"),
    [
        ({"clusterIP": "None"}, True, 0),
        ({"clusterIPs": ["None"]}, True, 0),
        ({}, False, 0),
        ({"clusterIP": ""}, False, 0),
        ({"clusterIP": "10.96.0.9"}, False, 1),
    ],
)
def test_headless_and_waiting_for_an_address_are_told_apart(ips: dict[str, Any], headless: bool, count: int) -> None:
    spec = {"ports": [{"port": 80}], **ips}
    service = parsed(changed(SERVICE, "spec", spec))
    assert (service.headless, len(service.cluster_ips)) == (headless, count)


def test_a_headless_service_needs_no_ports() -> None:
    assert parsed(changed(SERVICE, "spec", {"clusterIP": "None"})).ports == ()


def test_an_external_name_is_read_without_final_dot() -> None:
    assert (parsed(EXTERNAL).type, parsed(EXTERNAL).external_name) == ("ExternalName", "api.example.com")


def test_one_port_needs_no_name() -> None:
    assert parsed(ONE_PORT).ports == (ServicePort(80, 80),)


@pytest.mark.parametrize(
    ("given", "balanced"),
    [
        ([{"ip": "192.0.2.1", "ipMode": "VIP"}], ("192.0.2.1",)),
        ([{"hostname": "lb.example.com"}], ("lb.example.com",)),
        ([{"ip": "2001:db8::1", "hostname": "lb.example.com"}, {"ip": "192.0.2.1"}], ("2001:db8::1", "192.0.2.1")),
        ([{"ip": "none"}, "x", {"hostname": "-"}, {}], ()),
        ("x", ()),
        (None, ()),
    ],
)
def test_what_a_load_balancer_gave_is_read_and_what_is_no_address_passed_over(
    given: object, balanced: tuple[str, ...]
) -> None:
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
    made = {**changed(SERVICE, "spec", spec), "status": {"loadBalancer": {"ingress": given}}}
    assert parsed(made).balanced == balanced
    assert parsed({**changed(made, "spec.type", "NodePort")}).balanced == ()
