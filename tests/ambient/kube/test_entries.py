"""ServiceEntry, WorkloadEntry, WorkloadGroup: what is read, and every rule that refuses one, with its whole reason."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.networking import Endpoint, EntryPort, ServiceEntry, WorkloadEntry, WorkloadGroup
from ambient.kube.objects import parse_object
from tests.support.refusals import REMOVE, Bad, changed, refused_exactly

ENTRY: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "ServiceEntry",
    "metadata": {"name": "db", "namespace": "shop"},
    "spec": {
        "hosts": ["db.example.com", "*.db.example.com"],
        "addresses": ["240.250.1.1", "10.8.0.0/16"],
        "ports": [
            {"number": 5432, "name": "tcp", "protocol": "TCP", "targetPort": 15432},
            {"number": 443, "name": "web", "protocol": "https"},
        ],
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "endpoints": [
            {
                "address": "10.9.9.9",
                "ports": {"tcp": 25432},
                "labels": {"app": "db"},
                "network": "east",
                "locality": "r1/z1/s1",
                "weight": 3,
                "serviceAccount": "db",
            },
            {"address": "unix:///run/db.sock"},
        ],
        "exportTo": [".", "other"],
        "subjectAltNames": ["spiffe://cluster.local/ns/shop/sa/db"],
    },
    "status": {"addresses": [{"host": "db.example.com", "value": "240.240.0.1"}, {"value": "2001:2::1"}]},
}
DYNAMIC = changed(
    changed(changed(ENTRY, "spec.endpoints", REMOVE), "spec.addresses", REMOVE), "spec.resolution", "DYNAMIC_DNS"
)
DYNAMIC["spec"]["hosts"] = ["*.example.com"]
NONE = changed(changed(ENTRY, "spec.endpoints", REMOVE), "spec.resolution", "NONE")
NONE["spec"]["ports"] = [{"number": 80, "name": "http"}]

WORKLOAD: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1beta1",
    "kind": "WorkloadEntry",
    "metadata": {"name": "vm1", "namespace": "shop", "labels": {"app": "mine", "tier": "x"}},
    "spec": {
        "address": "172.30.9.9",
        "ports": {"http": 8080},
        "labels": {"app": "spec", "version": "v1"},
        "locality": "r2/z2",
        "network": "",
        "weight": 3,
        "serviceAccount": "vm",
    },
}
GROUP: dict[str, Any] = {
    "apiVersion": "networking.istio.io/v1alpha3",
    "kind": "WorkloadGroup",
    "metadata": {"name": "vms", "namespace": "shop"},
    "spec": {
        "metadata": {"labels": {"app": "vm"}, "annotations": {"a.b/c": "d"}},
        "template": {"ports": {"http": 8080}, "serviceAccount": "vm", "network": "n", "locality": "r"},
        "probe": {"periodSeconds": 5, "httpGet": {"port": 8080}},
    },
}

ENTRY_RULES = [
    Bad("spec", REMOVE, "is required"),
    Bad("spec.host", "x", "unknown field"),
    Bad("spec.hosts", REMOVE, "is required"),
    Bad("spec.hosts", [], "needs at least one host"),
    Bad("spec.hosts.0", "*", "'*' alone would take every host; name a domain"),
    Bad(
        "spec.hosts.0",
        "a.*.b",
        "'a.*.b' is not a DNS name (labels of a-z, 0-9 and '-', joined by dots)",
    ),
    Bad("spec.hosts.1", "db.example.com", "'db.example.com' is there twice", at="spec.hosts"),
    Bad("spec.hosts.1", "DB.Example.com", "'db.example.com' is there twice", at="spec.hosts"),
    Bad("spec.hosts", [f"{i}.example.com" for i in range(257)], "257 hosts: at most 256"),
    Bad("spec.ports", [{"number": i + 1, "name": f"p{i}"} for i in range(257)], "257 ports: at most 256"),
    Bad("spec.endpoints", [{"address": "192.0.2.1"}] * 4097, "4097 endpoints: at most 4096"),
    Bad("spec.addresses.0", "db", "'db' is not an IP address or CIDR"),
    Bad("spec.ports.0.number", 0, "0 is not a port (1..65535)"),
    Bad("spec.ports.0.name", REMOVE, "is required"),
    Bad("spec.ports.1.name", "tcp", "two ports are called 'tcp'", at="spec.ports"),
    Bad("spec.ports.1.number", 5432, "port 5432 is there twice", at="spec.ports"),
    Bad(
        "spec.ports.0.protocol",
        "QUIC",
        "'QUIC' is not one of HTTP, HTTP_PROXY, HTTP2, HTTPS, GRPC, GRPC-WEB, TCP, TLS, UDP, MONGO, MYSQL, REDIS",
    ),
    Bad("spec.ports.0.targetPort", 65536, "65536 is not in range (0..65535)"),
    Bad("spec.location", "OUTSIDE", "'OUTSIDE' is not one of MESH_EXTERNAL, MESH_INTERNAL"),
    Bad("spec.resolution", "dns", "'dns' is not one of NONE, STATIC, DNS, DNS_ROUND_ROBIN, DYNAMIC_DNS"),
    Bad(
        "spec.resolution",
        "NONE",
        "resolution NONE goes to the address that was asked for",
        at="spec.endpoints",
    ),
    Bad("spec.resolution", "DNS", "a range of addresses does not go with resolution DNS", at="spec.addresses"),
    Bad("spec.resolution", "DYNAMIC_DNS", "DYNAMIC_DNS has no endpoints of its own"),
    Bad("spec.workloadSelector", {"labels": {"a": "b"}}, "may not stand beside endpoints"),
    Bad("spec.endpoints.0.address", REMOVE, "is required"),
    Bad(
        "spec.endpoints.0.address",
        "db.example.org",
        "'db.example.org' is not an IP address, as resolution STATIC needs",
    ),
    Bad("spec.endpoints.0.address", "a b", "'a b' is neither an IP address nor a host name"),
    Bad("spec.endpoints.1.address", "unix://run/x", "'unix://run/x': the path of the socket must be absolute"),
    Bad("spec.endpoints.1.ports", {"tcp": 1}, "a socket of this machine has no ports"),
    Bad("spec.endpoints.0.ports", {"udp": 1}, "no port of this entry is called 'udp'", at="spec.endpoints[0]"),
    Bad("spec.endpoints.0.ports", {"tcp": 0}, "0 is not a port (1..65535)", at="spec.endpoints[0].ports[tcp]"),
    Bad(
        "spec.endpoints.0.ports",
        {"T_": 1},
        "'T_' is not a DNS label (a-z, 0-9 and '-', alphanumeric at both ends)",
        at="spec.endpoints[0].ports[T_]",
    ),
    Bad("spec.endpoints.0.locality", "r//s", "'r//s' is not region, region/zone or region/zone/subzone"),
    Bad("spec.endpoints.0.locality", "a/b/c/d", "'a/b/c/d' is not region, region/zone or region/zone/subzone"),
    Bad("spec.endpoints.0.weight", -1, "-1 is not in range (0..4294967295)"),
    Bad("spec.endpoints.0.weigth", 1, "unknown field"),
    Bad("spec.endpoints.0.serviceAccount", "A", "'A' is not a DNS name (labels of a-z, 0-9 and '-', joined by dots)"),
    Bad("spec.exportTo.0", "a/b", "'a/b' is not a DNS label (a-z, 0-9 and '-', alphanumeric at both ends)"),
    Bad("spec.subjectAltNames.0", "", "an empty value matches nothing"),
    Bad("status.addresses.0.value", "x", "'x' is not an IP address"),
]
DYNAMIC_RULES = [
    Bad(
        "spec.hosts.0", "a.example.com", "'a.example.com': DYNAMIC_DNS is for hosts that begin with '*.'", "spec.hosts"
    ),
    Bad("spec.workloadSelector", {"labels": {}}, "needs at least one label"),
    *(
        Bad("spec.hosts.0", host, f"'{host}': below it are addresses, or names of the machine's own", "spec.hosts")
        for host in ("*.169.254", "*.254", "*.0.0.1", "*.0x7f", "*.7.0x1", "*.localhost", "*.a.localhost")
    ),
]
NONE_RULES = [Bad("spec.ports.0.targetPort", 81, "a targetPort does not go with resolution NONE", at="spec.ports")]
WORKLOAD_RULES = [
    Bad("spec.address", REMOVE, "is required where no network is named"),
    Bad("spec.address", "a_b", "'a_b' is neither an IP address nor a host name"),
    Bad("spec.ports.http", "8080", "expected an integer, found a string ('8080')", at="spec.ports[http]"),
    Bad("spec.metadata", {}, "unknown field"),
    Bad("spec.weight", 2**32, "4294967296 is not in range (0..4294967295)"),
    Bad(
        "spec.labels.app",
        "a b",
        "'a b' is not a label value (letters, digits, '-', '_', '.', alphanumeric at both ends)",
        at="spec.labels[app]",
    ),
]
GROUP_RULES = [
    Bad("spec.template", REMOVE, "is required"),
    Bad("spec.template.address", "10.0.0.1", "each workload brings its own"),
    Bad("spec.metadata.name", "x", "unknown field"),
    Bad("spec.probe.httpGet", REMOVE, "a probe needs exactly one of httpGet, tcpSocket, exec and grpc", "spec.probe"),
    Bad("spec.probe.exec", {}, "a probe needs exactly one of httpGet, tcpSocket, exec and grpc", "spec.probe"),
    Bad("spec.probe.every", 1, "unknown field"),
]


def test_what_is_read_of_a_service_entry() -> None:
    found = parse_object(ENTRY, "x")
    assert isinstance(found, ServiceEntry)
    assert found.hosts == ("db.example.com", "*.db.example.com")
    assert found.addresses == (ip_network("240.250.1.1"), ip_network("10.8.0.0/16"))
    assert found.ports == (EntryPort(5432, "tcp", "TCP", 15432), EntryPort(443, "web", "HTTPS"))
    assert (found.location, found.resolution, found.export_to) == ("MESH_INTERNAL", "STATIC", (".", "other"))
    first, second = found.endpoints
    assert first == Endpoint(
        address="10.9.9.9",
        ports={"tcp": 25432},
        labels={"app": "db"},
        network="east",
        locality="r1/z1/s1",
        weight=3,
        service_account="db",
    )
    assert second.address == "unix:///run/db.sock"
    assert found.subject_alt_names == ("spiffe://cluster.local/ns/shop/sa/db",)
    assert found.allocated == (
        ("db.example.com", ip_address("240.240.0.1")),
        ("db.example.com", ip_address("2001:2::1")),
    )


def test_hosts_are_read_in_lower_case_as_dns_tells_no_cases_apart() -> None:
    found = parse_object(
        changed(changed(ENTRY, "spec.hosts.0", "DB.Example.com"), "status.addresses.0.host", "DB.example.COM"), "x"
    )
    assert isinstance(found, ServiceEntry)
    assert found.hosts == ("db.example.com", "*.db.example.com")
    assert {host for host, _ in found.allocated} == {"db.example.com"}


def test_what_is_read_of_a_workload_entry() -> None:
    found = parse_object(WORKLOAD, "x")
    assert isinstance(found, WorkloadEntry)
    assert (found.endpoint.address, found.endpoint.weight, found.endpoint.service_account) == ("172.30.9.9", 3, "vm")
    assert found.merged_labels == {"app": "mine", "tier": "x", "version": "v1"}


def test_a_workload_on_a_named_network_may_have_no_address() -> None:
    elsewhere = changed(changed(WORKLOAD, "spec.network", "east"), "spec.address", REMOVE)
    found = parse_object(elsewhere, "x")
    assert isinstance(found, WorkloadEntry)
    assert (found.endpoint.address, found.endpoint.network) == ("", "east")


def test_what_is_read_of_a_workload_group() -> None:
    found = parse_object(GROUP, "x")
    assert isinstance(found, WorkloadGroup)
    assert (dict(found.entry_labels), dict(found.entry_annotations)) == ({"app": "vm"}, {"a.b/c": "d"})
    assert (found.template.service_account, found.template.network) == ("vm", "n")
    assert found.probe["httpGet"] == {"port": 8080}


def test_a_live_server_does_not_make_an_unknown_field_acceptable() -> None:
    with pytest.raises(InvalidInput, match="unknown field"):
        parse_object(changed(ENTRY, "spec.host", "x"), "x", observed=True)


@pytest.mark.parametrize("bad", ENTRY_RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[:60])
def test_a_broken_rule_of_a_service_entry_is_refused(bad: Bad) -> None:
    refused_exactly(ENTRY, bad)


@pytest.mark.parametrize(
    ("hosts", "ports", "endpoints", "why"),
    [
        (64, 65, 0, "64 hosts with 65 ports each: at most 4096 together"),
        (50, 50, 41, "50 hosts with 50 ports and 41 endpoints each: at most 100000 together"),
    ],
)
def test_an_entry_may_not_multiply_into_more_than_ztunnels_hold(
    hosts: int, ports: int, endpoints: int, why: str
) -> None:
    def entry(hosts: int, ports: int, endpoints: int) -> dict[str, Any]:
        named = changed(ENTRY, "spec.hosts", [f"h{i}.example.com" for i in range(hosts)])
        named["spec"]["ports"] = [{"number": i + 1, "name": f"p{i}"} for i in range(ports)]
        return changed(named, "spec.endpoints", [{"address": f"192.0.2.{i}"} for i in range(endpoints)])

    with pytest.raises(InvalidInput, match=why):
        parse_object(entry(hosts, ports, endpoints), "x")
    assert parse_object(entry(hosts, ports - 1, max(0, endpoints - 1)), "x")


@pytest.mark.parametrize("bad", DYNAMIC_RULES, ids=lambda bad: bad.path)
def test_a_broken_rule_of_an_entry_with_names_of_the_moment_is_refused(bad: Bad) -> None:
    refused_exactly(DYNAMIC, bad)


@pytest.mark.parametrize("bad", NONE_RULES, ids=lambda bad: bad.path)
def test_a_broken_rule_of_an_entry_without_resolution_is_refused(bad: Bad) -> None:
    refused_exactly(NONE, bad)


@pytest.mark.parametrize("bad", WORKLOAD_RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[:60])
def test_a_broken_rule_of_a_workload_entry_is_refused(bad: Bad) -> None:
    refused_exactly(WORKLOAD, bad)


@pytest.mark.parametrize("bad", GROUP_RULES, ids=lambda bad: f"{bad.path}-{bad.why}"[:60])
def test_a_broken_rule_of_a_workload_group_is_refused(bad: Bad) -> None:
    refused_exactly(GROUP, bad)
