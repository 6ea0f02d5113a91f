"""`ambient explain`: routes and verdicts as the nodes' own views give them, and exit codes that scripts can use."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ambient.cli.env import Exit
from tests.support.cli import FakeMesh, ambient
from tests.support.explain import ONLY_WEB, STRICT, dump_of, dumped, explain


@pytest.mark.parametrize(
    "destination",
    [
        "db:80",
        "db.shop:80",
        "db.shop.svc:80",
        "db.shop.svc.cluster.local:80",
        "DB.shop:80",
        "10.96.0.9:80",
        "shop/db:8080",
    ],
)
def test_an_allowed_connection_names_route_rule_and_exits_with_0(destination: str) -> None:
    ran = explain("shop/web", destination, dump_of([ONLY_WEB]))
    assert ran.code == Exit.OK, ran.out + ran.err
    assert "mutual TLS through the mesh" in ran.out
    assert "shop/db on n2  10.1.2.2:15008, CONNECT 10.1.2.2:8080" in ran.out
    assert "allowed: rule 1 of shop/only-web matches" in ran.out


def test_a_denied_connection_says_what_the_nearest_rule_misses_and_exits_with_3() -> None:
    ran = explain("shop/batch", "db.shop:80", dump_of([ONLY_WEB]))
    assert ran.code == Exit.NEGATIVE
    assert "cluster.local/ns/shop/sa/batch is not cluster.local/ns/shop/sa/web" in ran.out


def test_the_port_that_is_judged_is_the_pods_not_the_services() -> None:
    ran = explain("shop/web", "db.shop:81", dump_of([ONLY_WEB]))
    assert ran.code == Exit.NEGATIVE
    assert "operation.ports: 8081 is not 8080" in ran.out


def test_strict_denies_who_is_not_in_the_mesh() -> None:
    ran = explain("shop/outside", "db.shop:80", dump_of([STRICT]))
    assert ran.code == Exit.NEGATIVE
    assert "in clear: the source is not in the mesh" in ran.out
    assert "denied: rule 1 of istio-system/istio_converted_static_strict matches" in ran.out
    assert explain("shop/web", "db.shop:80", dump_of([STRICT])).code == Exit.OK


@pytest.mark.parametrize("port", [15001, 15006, 15008])
@pytest.mark.parametrize("client", ["shop/web", "shop/outside"])
def test_a_port_of_ztunnel_leads_to_nobody(client: str, port: int) -> None:
    ran = explain(client, f"shop/db:{port}", dump_of([]))
    assert ran.code == Exit.NEGATIVE
    assert f"denied: {port} is a port of ztunnel" in ran.out
    assert explain(client, f"shop/legacy:{port}", dump_of([])).code == Exit.OK


def test_a_pod_that_calls_its_own_address_is_judged_by_nobody() -> None:
    ran = explain("shop/db", "shop/db:8080", dump_of([STRICT, ONLY_WEB]))
    assert ran.code == Exit.OK
    assert "allowed: it does not leave the pod, nobody judges" in ran.out
    ran = explain("shop/db", "db.shop:80", dump_of([ONLY_WEB]))
    assert ran.code == Exit.NEGATIVE
    assert explain("shop/db", "shop/db:15008", dump_of([])).code == Exit.NEGATIVE


def test_who_is_not_in_the_mesh_finds_an_endpoint_by_the_port_of_the_service_too() -> None:
    dump = dump_of([STRICT])
    dump["services"][0]["endpoints"]["Kubernetes//Pod/shop/db"]["port"] = {}
    ran = explain("shop/outside", "db.shop:80", dump)
    assert "shop/db on n2  10.1.2.2:8080, plain TCP" in ran.out
    assert "denied: rule 1 of istio-system/istio_converted_static_strict matches" in ran.out


def test_an_address_that_nobody_has_is_a_source_without_identity() -> None:
    assert explain("203.0.113.7", "db.shop:80", dump_of([STRICT])).code == Exit.NEGATIVE
    assert explain("203.0.113.7", "db.shop:80", dump_of([])).code == Exit.OK


def test_a_destination_outside_the_mesh_is_judged_by_nobody() -> None:
    ran = explain("shop/web", "shop/legacy:80", dump_of([ONLY_WEB]))
    assert ran.code == Exit.OK
    assert "nobody judges" in ran.out


def test_a_policy_that_was_not_received_denies() -> None:
    dump = dump_of([ONLY_WEB])
    dump["policies"] = []
    ran = explain("shop/web", "db.shop:80", dump)
    assert ran.code == Exit.NEGATIVE
    assert "shop/only-web, which has not been received" in ran.out


def test_each_node_judges_by_its_own_view() -> None:
    mesh = FakeMesh(names=("n1", "n2"))
    mesh.answers["n1/ztunnel", "/config_dump"] = dump_of([])
    mesh.answers["n2/ztunnel", "/config_dump"] = dump_of([ONLY_WEB])
    assert ambient(mesh, "explain", "shop/batch", "db.shop:80").code == Exit.NEGATIVE


def test_a_node_that_does_not_answer_is_said_and_the_others_do() -> None:
    mesh = FakeMesh({("n1/ztunnel", "/config_dump"): dump_of([ONLY_WEB])}, names=("n1", "n2"))
    ran = ambient(mesh, "explain", "shop/batch", "db.shop:80")
    assert ran.code == Exit.NEGATIVE
    assert "n2/ztunnel does not answer" in ran.err


def test_json_has_every_part_of_the_answer() -> None:
    document = explain("shop/batch", "db.shop:80", dump_of([ONLY_WEB]), "-o", "json").json
    assert document["allowed"] is False
    assert document["source"]["identity"] == "spiffe://cluster.local/ns/shop/sa/batch"
    (endpoint,) = document["endpoints"]
    assert endpoint["policy"] == "shop/only-web"
    assert endpoint["node"] == "n2"
    assert endpoint["misses"] == [
        {
            "field": "source.principals",
            "wanted": "cluster.local/ns/shop/sa/web",
            "actual": "cluster.local/ns/shop/sa/batch",
        }
    ]


def test_a_port_the_service_does_not_have_is_refused_at_the_source() -> None:
    ran = explain("shop/web", "db.shop:9", dump_of([]))
    assert ran.code == Exit.NEGATIVE
    assert "refused at the source" in ran.out


def test_ipv6_needs_brackets_and_works_with_them() -> None:
    text = json.dumps(dump_of([ONLY_WEB])).replace("10.1.2.2", "fd00::2").replace("10.1.1.2", "fd00::1")
    dump = json.loads(text)
    assert explain("shop/web", "[fd00::2]:8080", dump).code == Exit.OK
    assert explain("shop/web", "fd00::2:8080", dump).code == Exit.USAGE


@pytest.mark.parametrize(
    ("source", "destination", "code", "complaint"),
    [
        ("shop/web", "db.shop", Exit.USAGE, "expected HOST:PORT"),
        ("shop/web", "db.shop:http", Exit.USAGE, "expected HOST:PORT"),
        ("shop/web", "db.shop:0", Exit.USAGE, "expected HOST:PORT"),
        ("web", "db.shop:80", Exit.USAGE, "expected NAMESPACE/POD"),
        ("shop/nobody", "db.shop:80", Exit.FAILURE, "no workload shop/nobody"),
        ("shop/web", "cache.shop:80", Exit.FAILURE, "no service cache.shop"),
        ("shop/web", "shop/nobody:80", Exit.FAILURE, "no workload shop/nobody"),
    ],
)
def test_what_cannot_be_explained_is_one_readable_line(
    source: str, destination: str, code: Exit, complaint: str
) -> None:
    ran = explain(source, destination, dump_of([]))
    assert ran.code == code
    assert complaint in ran.err
    assert ran.err.count("\n") == 1


def test_a_service_behind_a_waypoint_is_routed_to_it_and_the_waypoint_decides() -> None:
    dump = dump_of([ONLY_WEB], waypoint={"destination": "shop/wp.shop.svc.cluster.local", "hboneMtlsPort": 15008})
    dump["workloads"].append(dumped("wp", "10.1.2.9", "n2"))
    dump["services"].append(
        {
            "name": "wp",
            "namespace": "shop",
            "hostname": "wp.shop.svc.cluster.local",
            "vips": ["/10.96.0.77"],
            "ports": {"15008": 15008},
            "canonical": True,
            "endpoints": {
                "Kubernetes//Pod/shop/wp": {
                    "workloadUid": "Kubernetes//Pod/shop/wp",
                    "port": {"15008": 15008},
                    "status": "Healthy",
                }
            },
        }
    )
    ran = explain("shop/web", "db.shop:80", dump)
    assert ran.code == Exit.OK, ran.out + ran.err
    assert "the waypoint decides" in ran.out
    past = explain("shop/web", "shop/db:8080", dump)
    assert past.code == Exit.NEGATIVE
    assert "only its waypoint may connect" in past.out


@pytest.mark.parametrize("config", [{"onlyWaypoints": False}, {}], ids=["ours, told so", "Istio's"])
def test_a_node_that_leaves_waypoints_to_policies_lets_pass_who_goes_past_them(config: dict[str, bool]) -> None:
    dump = dump_of([], waypoint={"destination": "shop/wp.shop.svc.cluster.local", "hboneMtlsPort": 15008})
    dump["config"] = {"onlyWaypoints": True}
    assert explain("shop/web", "shop/db:8080", dump).code == Exit.NEGATIVE
    dump["config"] = config
    assert explain("shop/web", "shop/db:8080", dump).code == Exit.OK


def test_a_waypoint_that_is_not_there_is_refused_at_the_source() -> None:
    dump = dump_of([], waypoint={"destination": "shop/wp.shop.svc.cluster.local", "hboneMtlsPort": 15008})
    ran = explain("shop/web", "db.shop:80", dump)
    assert ran.code == Exit.NEGATIVE
    assert "unknown-waypoint" in ran.out


def _from_block(action: str, block: str) -> dict[str, Any]:
    rule = [[{"sourceIps": [block]}]]
    return {"name": "by-ip", "namespace": "shop", "scope": "WorkloadSelector", "action": action, "rules": [rule]}


def _dual(policies: list[dict[str, Any]]) -> dict[str, Any]:
    """`web` (a pod of IPv4 first) and `db` with its service have both families, `batch` has IPv4 only."""
    dump = dump_of(policies)
    for workload in dump["workloads"]:
        if workload["name"] in ("web", "db"):
            workload["workloadIps"].append(workload["workloadIps"][0].replace("10.1.", "fd00::").replace(".", ":"))
    dump["services"][0] |= {"vips": ["/10.96.0.9", "/fd00:96::9"], "ipFamilies": "Dual"}
    return dump


@pytest.mark.parametrize(
    ("action", "block", "code4", "code6"),
    [
        ("Deny", "10.1.1.2/32", Exit.NEGATIVE, Exit.OK),
        ("Deny", "fd00::1:2/128", Exit.OK, Exit.NEGATIVE),
        ("Allow", "10.1.1.2/32", Exit.OK, Exit.NEGATIVE),
        ("Allow", "fd00::1:2/128", Exit.NEGATIVE, Exit.OK),
    ],
)
def test_the_source_address_is_of_the_destinations_family(action: str, block: str, code4: Exit, code6: Exit) -> None:
    dump = _dual([_from_block(action, block)])
    for destination, code, own in (
        ("10.96.0.9:80", code4, "10.1.1.2"),
        ("10.1.2.2:8080", code4, "10.1.1.2"),
        ("[fd00:96::9]:80", code6, "fd00::1:2"),
        ("[fd00::2:2]:8080", code6, "fd00::1:2"),
    ):
        for source in ("shop/web", "10.1.1.2", "fd00::1:2"):
            ran = explain(source, destination, dump)
            assert ran.code == code, f"{source} {destination}: {ran.out}{ran.err}"
            assert f"from     {source}  {own}  spiffe" in ran.out


@pytest.mark.parametrize("destination", ["db.shop:80", "shop/db:8080"])
def test_every_family_both_ends_have_is_explained_ipv6_first_and_one_denial_is_a_no(destination: str) -> None:
    dump = _dual([_from_block("Deny", "fd00::1:2/128")])
    ran = explain("shop/web", destination, dump)
    assert ran.code == Exit.NEGATIVE
    verdicts = [line for line in ran.out.splitlines() if line.startswith("verdict")]
    assert [verdict.split()[1].strip(":") for verdict in verdicts] == ["denied", "allowed"]
    document = explain("shop/web", destination, dump, "-o", "json").json
    assert [(one["family"], one["allowed"]) for one in document["families"]] == [("IPv6", False), ("IPv4", True)]
    assert (document["allowed"], document["source"]["address"]) == (False, "fd00::1:2")
    assert explain("shop/web", destination, _dual([])).code == Exit.OK
    other = explain("shop/web", destination, _dual([_from_block("Deny", "10.1.1.2/32")]), "-o", "json")
    assert (other.code, other.json["allowed"]) == (Exit.NEGATIVE, False), "also when only the second is denied"


@pytest.mark.parametrize("source", ["shop/batch", "10.1.1.3", "203.0.113.7"])
def test_a_source_of_one_family_is_explained_in_that_one(source: str) -> None:
    ran = explain(source, "db.shop:80", _dual([]), "-o", "json")
    assert [one["family"] for one in ran.json["families"]] == ["IPv4"], ran.out + ran.err


def test_a_headless_service_has_the_families_it_says() -> None:
    for families, wanted in (("Dual", ["IPv6", "IPv4"]), ("IPv4", ["IPv4"]), ("IPv6", ["IPv6"])):
        dump = _dual([])
        dump["services"][0] |= {"vips": [], "ipFamilies": families}
        ran = explain("shop/web", "db.shop:8080", dump, "-o", "json")
        assert [one["family"] for one in ran.json["families"]] == wanted


@pytest.mark.parametrize(
    ("source", "destination", "code"),
    [
        ("10.1.1.3", "[fd00::2:2]:8080", Exit.USAGE),
        ("203.0.113.7", "[fd00:96::9]:80", Exit.USAGE),
        ("2001:db8::7", "10.96.0.9:80", Exit.USAGE),
        ("2001:db8::7", "shop/legacy:80", Exit.USAGE),
        ("shop/batch", "[fd00:96::9]:80", Exit.FAILURE),
    ],
)
def test_a_source_without_an_address_of_the_family_cannot_connect(source: str, destination: str, code: Exit) -> None:
    ran = explain(source, destination, _dual([]))
    assert ran.code == code, ran.out
    assert "address" in ran.err
    assert ran.err.count("\n") == 1


def test_an_endpoint_of_the_other_family_sees_the_clients_address_of_that_family() -> None:
    dump = _dual([_from_block("Deny", "10.1.1.2/32")])
    dump["workloads"][2]["workloadIps"] = ["10.1.2.2"]
    ran = explain("shop/web", "[fd00:96::9]:80", dump)
    assert ran.code == Exit.NEGATIVE, ran.out
