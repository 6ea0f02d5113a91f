"""DNS names of a small cluster, against what CoreDNS answers for the same."""

from __future__ import annotations

from typing import Any

import dnslib
import pytest

from ambient.kube.objects import Records, parse_object
from ambient.lab.kubelet.dns import reply
from ambient.lab.kubelet.names import Code, zone


def _object(kind: str, name: str, namespace: str = "a", **more: Any) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {}) | more.pop("metadata", {})
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


def _pod(name: str, ips: list[str], *, ready: bool = True, **spec: Any) -> dict[str, Any]:
    return _object(
        *("Pod", name),
        metadata={"labels": {"app": "x"}},
        spec={
            "containers": [{"name": "c", "command": ["true"], "ports": [{"name": "web", "containerPort": 8080}]}],
            **spec,
        },
        status={"phase": "Running", "ready": ready, "podIPs": [{"ip": ip} for ip in ips]},
    )


def _service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    return _object("Service", name, spec={"selector": {"app": "x"}, "ports": ports, **spec})


OBJECTS = [
    _object("Namespace", "a", ""),
    _pod("one", ["10.0.0.1", "fd00::1"], hostname="first", subdomain="flat"),
    _pod("two", ["10.0.0.2"]),
    _pod("three", ["10.0.0.3"], ready=False),
    _service("web", clusterIP="10.9.0.1", clusterIPs=["10.9.0.1", "fd09::1"]),
    _service("flat", clusterIP="None"),
    _service("all", clusterIP="None", publishNotReadyAddresses=True),
    {**_service("away"), "spec": {"type": "ExternalName", "externalName": "far.example.com"}},
]
RECORDS = [parse_object(raw, "t") for raw in OBJECTS]
ZONE = zone(Records(1, {record.key: record for record in RECORDS}))


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("web.a.svc.cluster.local", ["10.9.0.1", "fd09::1"]),
        ("WEB.A.svc.Cluster.Local.", ["10.9.0.1", "fd09::1"]),
        ("flat.a.svc.cluster.local", ["10.0.0.1", "10.0.0.2", "fd00::1"]),
        ("all.a.svc.cluster.local", ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"]),
        ("first.flat.a.svc.cluster.local", ["10.0.0.1", "fd00::1"]),
        ("10-0-0-2.flat.a.svc.cluster.local", ["10.0.0.2"]),
        ("10-0-0-3.a.pod.cluster.local", ["10.0.0.3"]),
        ("fd00--1.a.pod.cluster.local", ["fd00::1"]),
    ],
)
def test_a_name_has_these_addresses(name: str, addresses: list[str]) -> None:
    assert sorted(str(ip) for ip in ZONE.resolve(name).addresses) == addresses


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "web",
        "web.a",
        "web.b.svc.cluster.local",
        "x.web.a.svc.cluster.local",
        "10-0-0-3.flat.a.svc.cluster.local",
        "first.all.a.svc.cluster.local",
        "1-2-3-4.a.pod.cluster.local",
        "b.svc.cluster.local",
        "_http._udp.web.a.svc.cluster.local",
        "1.0.0.11.in-addr.arpa",
        "x.in-addr.arpa",
        "1.ip6.arpa",
        "in-addr.arpa",
        "",
    ],
)
def test_a_name_that_does_not_exist(name: str) -> None:
    assert ZONE.resolve(name).code is Code.NO_NAME


@pytest.mark.parametrize("name", ["cluster.local", "svc.cluster.local", "a.svc.cluster.local", "a.pod.cluster.local"])
def test_a_name_between_others_exists_without_content(name: str) -> None:
    answer = ZONE.resolve(name)
    assert (answer.code, answer.addresses) == (Code.OK, ())


def test_an_external_name_is_an_alias() -> None:
    assert ZONE.resolve("away.a.svc.cluster.local").alias == "far.example.com"


def test_ports_of_services_and_of_the_pods_of_headless_ones() -> None:
    web = ZONE.resolve("_http._tcp.web.a.svc.cluster.local").services
    assert [(srv.port, srv.target) for srv in web] == [(80, "web.a.svc.cluster.local")]
    flat = ZONE.resolve("_http._tcp.flat.a.svc.cluster.local").services
    assert [(srv.port, srv.target) for srv in flat] == [
        (8080, "first.flat.a.svc.cluster.local"),
        (8080, "10-0-0-2.flat.a.svc.cluster.local"),
    ]


@pytest.mark.parametrize(
    ("name", "pointer"),
    [
        ("1.0.9.10.in-addr.arpa", "web.a.svc.cluster.local"),
        ("2.0.0.10.in-addr.arpa", "10-0-0-2.flat.a.svc.cluster.local"),
        (dnslib.DNSLabel("1" + ".0" * 27 + ".9.0.d.f.ip6.arpa").idna(), "web.a.svc.cluster.local"),
    ],
)
def test_addresses_lead_back_to_names(name: str, pointer: str) -> None:
    assert pointer in {ZONE.resolve(name).pointer, ZONE.resolve(name).pointer.replace("all", "flat")}


def _ask(name: str, qtype: str, *, udp: bool = True) -> dnslib.DNSRecord:
    answer = reply(ZONE, bytes(dnslib.DNSRecord.question(name, qtype).pack()), udp=udp)
    assert answer is not None
    return dnslib.DNSRecord.parse(answer)


def test_each_type_gets_its_own_family() -> None:
    assert [str(rr.rdata) for rr in _ask("web.a.svc.cluster.local", "A").rr] == ["10.9.0.1"]
    assert [str(rr.rdata) for rr in _ask("web.a.svc.cluster.local", "AAAA").rr] == ["fd09::1"]


def test_an_alias_within_the_cluster_comes_with_what_it_stands_for_and_a_ring_of_them_ends() -> None:
    def alias(name: str, to: str) -> dict[str, Any]:
        return {**_service(name), "spec": {"type": "ExternalName", "externalName": to}}

    raw = [alias("one", "two.a.svc.cluster.local"), alias("two", "web.a.svc.cluster.local")]
    raw += [alias("round", "about.a.svc.cluster.local"), alias("about", "round.a.svc.cluster.local")]
    aliases = [parse_object(each, "t") for each in raw]
    known = zone(Records(1, {record.key: record for record in [*RECORDS, *aliases]}))

    def ask(name: str, qtype: str) -> list[str]:
        answer = reply(known, bytes(dnslib.DNSRecord.question(f"{name}.a.svc.cluster.local", qtype).pack()), udp=False)
        assert answer is not None
        return [str(rr.rdata) for rr in dnslib.DNSRecord.parse(answer).rr]

    chain = ["two.a.svc.cluster.local.", "web.a.svc.cluster.local."]
    assert ask("one", "A") == [*chain, "10.9.0.1"]
    assert ask("one", "AAAA") == [*chain, "fd09::1"]
    assert ask("one", "CNAME") == chain[:1]
    assert ask("away", "A") == ["far.example.com."]
    assert 0 < len(ask("round", "A")) < 20


def test_no_data_and_no_name_both_carry_the_start_of_authority() -> None:
    empty, missing = _ask("web.a.svc.cluster.local", "MX"), _ask("nix.a.svc.cluster.local", "A")
    assert (empty.header.rcode, missing.header.rcode) == (0, 3)
    assert [len(answer.auth) for answer in (empty, missing)] == [1, 1]


@pytest.mark.parametrize("query", [b"", b"\0" * 12, b"x" * 40, b"\xff" * 600])
def test_garbage_gets_no_answer(query: bytes) -> None:
    assert reply(ZONE, query, udp=True) is None


def test_a_long_answer_over_udp_asks_for_tcp() -> None:
    pods = [_pod(f"p{i}", [f"10.1.{i // 250}.{i % 250 + 1}"]) for i in range(100)]
    records = [parse_object(raw, "t") for raw in [*pods, _service("many", clusterIP="None")]]
    big = zone(Records(1, {record.key: record for record in records}))
    query = bytes(dnslib.DNSRecord.question("many.a.svc.cluster.local").pack())
    over_udp, over_tcp = reply(big, query, udp=True), reply(big, query, udp=False)
    assert over_udp is not None
    assert over_tcp is not None
    assert len(over_udp) <= 512
    assert dnslib.DNSRecord.parse(over_udp).header.tc == 1
    assert len(dnslib.DNSRecord.parse(over_tcp).rr) == 100
