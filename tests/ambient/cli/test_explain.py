"""`ambient explain`: routes and verdicts as the nodes' own views give them, and exit codes that scripts can use."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ambient.cli.env import Exit
from tests.support.cli import FakeMesh, Ran, ambient


def _workload(name: str, ip: str, node: str, **more: Any) -> dict[str, Any]:
    return {
        "uid": f"Kubernetes//Pod/shop/{name}",
        "name": name,
        "namespace": "shop",
        "serviceAccount": name,
        "workloadIps": [ip],
        "protocol": "HBONE",
        "node": node,
        "status": "Healthy",
        "clusterId": "Kubernetes",
        "networkMode": "Standard",
        "capacity": 1,
    } | more


ONLY_WEB = {
    "name": "only-web",
    "namespace": "shop",
    "scope": "WorkloadSelector",
    "action": "Allow",
    "rules": [[[{"principals": [{"Exact": "cluster.local/ns/shop/sa/web"}]}], [{"destinationPorts": [8080]}]]],
}
STRICT = {
    "name": "istio_converted_static_strict",
    "namespace": "istio-system",
    "scope": "WorkloadSelector",
    "action": "Deny",
    "rules": [[[{"notPrincipals": [{"Presence": []}]}]]],
}


def _dump(policies: list[dict[str, Any]], *, waypoint: dict[str, Any] | None = None) -> dict[str, Any]:
    names = [f"{policy['namespace']}/{policy['name']}" for policy in policies]
    service: dict[str, Any] = {
        "name": "db",
        "namespace": "shop",
        "hostname": "db.shop.svc.cluster.local",
        "vips": ["/10.96.0.9"],
        "ports": {"80": 8080, "81": 8081},
        "canonical": True,
        "endpoints": {
            "Kubernetes//Pod/shop/db": {
                "workloadUid": "Kubernetes//Pod/shop/db",
                "port": {"80": 8080, "81": 8081},
                "status": "Healthy",
            }
        },
    }
    if waypoint:
        service["waypoint"] = waypoint
    return {
        "workloads": [
            _workload("web", "10.1.1.2", "n1"),
            _workload("batch", "10.1.1.3", "n1"),
            _workload("db", "10.1.2.2", "n2", authorizationPolicies=names),
            _workload("legacy", "10.1.2.3", "n2", protocol="TCP"),
            _workload("outside", "10.1.1.9", "n1", protocol="TCP"),
        ],
        "services": [service],
        "policies": [policy for policy in policies if policy.get("action")],
    }


def _explain(source: str, destination: str, dump: dict[str, Any], *options: str) -> Ran:
    mesh = FakeMesh(names=("n1", "n2"))
    for node in mesh.names:
        mesh.answers[f"{node}/ztunnel", "/config_dump"] = dump
    return ambient(mesh, "explain", source, destination, *options)


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
    ran = _explain("shop/web", destination, _dump([ONLY_WEB]))
    assert ran.code == Exit.OK, ran.out + ran.err
    assert "mutual TLS through the mesh" in ran.out
    assert "shop/db on n2  10.1.2.2:15008, CONNECT 10.1.2.2:8080" in ran.out
    assert "allowed: rule 1 of shop/only-web matches" in ran.out


def test_a_denied_connection_says_what_the_nearest_rule_misses_and_exits_with_3() -> None:
    ran = _explain("shop/batch", "db.shop:80", _dump([ONLY_WEB]))
    assert ran.code == Exit.NEGATIVE
    assert "cluster.local/ns/shop/sa/batch is not cluster.local/ns/shop/sa/web" in ran.out


def test_the_port_that_is_judged_is_the_pods_not_the_services() -> None:
    ran = _explain("shop/web", "db.shop:81", _dump([ONLY_WEB]))
    assert ran.code == Exit.NEGATIVE
    assert "operation.ports: 8081 is not 8080" in ran.out


def test_strict_denies_who_is_not_in_the_mesh() -> None:
    ran = _explain("shop/outside", "db.shop:80", _dump([STRICT]))
    assert ran.code == Exit.NEGATIVE
    assert "in clear: the source is not in the mesh" in ran.out
    assert "denied: rule 1 of istio-system/istio_converted_static_strict matches" in ran.out
    assert _explain("shop/web", "db.shop:80", _dump([STRICT])).code == Exit.OK


def test_an_address_that_nobody_has_is_a_source_without_identity() -> None:
    assert _explain("203.0.113.7", "db.shop:80", _dump([STRICT])).code == Exit.NEGATIVE
    assert _explain("203.0.113.7", "db.shop:80", _dump([])).code == Exit.OK


def test_a_destination_outside_the_mesh_is_judged_by_nobody() -> None:
    ran = _explain("shop/web", "shop/legacy:80", _dump([ONLY_WEB]))
    assert ran.code == Exit.OK
    assert "nobody judges" in ran.out


def test_a_policy_that_was_not_received_denies() -> None:
    dump = _dump([ONLY_WEB])
    dump["policies"] = []
    ran = _explain("shop/web", "db.shop:80", dump)
    assert ran.code == Exit.NEGATIVE
    assert "shop/only-web, which has not been received" in ran.out


def test_each_node_judges_by_its_own_view() -> None:
    mesh = FakeMesh(names=("n1", "n2"))
    mesh.answers["n1/ztunnel", "/config_dump"] = _dump([])
    mesh.answers["n2/ztunnel", "/config_dump"] = _dump([ONLY_WEB])
    assert ambient(mesh, "explain", "shop/batch", "db.shop:80").code == Exit.NEGATIVE


def test_a_node_that_does_not_answer_is_said_and_the_others_do() -> None:
    mesh = FakeMesh({("n1/ztunnel", "/config_dump"): _dump([ONLY_WEB])}, names=("n1", "n2"))
    ran = ambient(mesh, "explain", "shop/batch", "db.shop:80")
    assert ran.code == Exit.NEGATIVE
    assert "n2/ztunnel does not answer" in ran.err


def test_json_has_every_part_of_the_answer() -> None:
    document = _explain("shop/batch", "db.shop:80", _dump([ONLY_WEB]), "-o", "json").json
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
    ran = _explain("shop/web", "db.shop:9", _dump([]))
    assert ran.code == Exit.NEGATIVE
    assert "refused at the source" in ran.out


def test_ipv6_needs_brackets_and_works_with_them() -> None:
    text = json.dumps(_dump([ONLY_WEB])).replace("10.1.2.2", "fd00::2").replace("10.1.1.2", "fd00::1")
    dump = json.loads(text)
    assert _explain("shop/web", "[fd00::2]:8080", dump).code == Exit.OK
    assert _explain("shop/web", "fd00::2:8080", dump).code == Exit.USAGE


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
    ran = _explain(source, destination, _dump([]))
    assert ran.code == code
    assert complaint in ran.err
    assert ran.err.count("\n") == 1


def test_a_service_behind_a_waypoint_is_routed_to_it_and_the_waypoint_decides() -> None:
    dump = _dump([ONLY_WEB], waypoint={"destination": "shop/wp.shop.svc.cluster.local", "hboneMtlsPort": 15008})
    dump["workloads"].append(_workload("wp", "10.1.2.9", "n2"))
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
    ran = _explain("shop/web", "db.shop:80", dump)
    assert ran.code == Exit.OK, ran.out + ran.err
    assert "the waypoint decides" in ran.out
    past = _explain("shop/web", "shop/db:8080", dump)
    assert past.code == Exit.NEGATIVE
    assert "only its waypoint may connect" in past.out


def test_a_waypoint_that_is_not_there_is_refused_at_the_source() -> None:
    dump = _dump([], waypoint={"destination": "shop/wp.shop.svc.cluster.local", "hboneMtlsPort": 15008})
    ran = _explain("shop/web", "db.shop:80", dump)
    assert ran.code == Exit.NEGATIVE
    assert "unknown-waypoint" in ran.out
