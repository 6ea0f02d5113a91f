"""`ambient explain`: where a connection goes, which endpoints it does not go to, and why."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.cli.env import Exit
from tests.support.explain import ONLY_WEB, dump_of, dumped, explain


def _with_endpoints(*workloads: dict[str, Any], **service: Any) -> dict[str, Any]:
    """The dump with these workloads as endpoints of db (port 80 -> 8080)."""
    dump = dump_of([])
    dump["workloads"] += [one for one in workloads if one["name"] != "db"]
    dump["services"][0].update(service)
    dump["services"][0]["endpoints"] |= {
        one["uid"]: {"workloadUid": one["uid"], "port": {"80": 8080}, "status": one["status"]} for one in workloads
    }
    return dump


def test_each_endpoint_that_is_not_chosen_is_named_with_its_reason() -> None:
    sick = dumped("sick", "10.1.2.4", "n2", status="Unhealthy")
    empty = dumped("empty", "10.1.2.5", "n2", capacity=0)
    far = dumped("far", "10.1.2.6", "n2", network="east")
    dump = _with_endpoints(sick, empty, far)
    ran = explain("shop/web", "db.shop:80", dump)
    assert ran.code == Exit.OK, ran.out + ran.err
    assert "not      shop/sick on n2: it is not ready, or leaving" in ran.out
    assert "not      shop/empty on n2: its capacity is 0" in ran.out
    assert "not      shop/far on n2: it is on another network, and no gateway of that is known" in ran.out
    answer = explain("shop/web", "db.shop:80", dump, "-o", "json").json
    assert {"workload": "shop/sick", "node": "n2", "why": "it is not ready, or leaving"} in answer["notChosen"]


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("Failover", "others are nearer (FAILOVER)"),
        ("Strict", "it is not where the service demands (STRICT)"),
    ],
)
def test_load_balancing_is_explained(mode: str, why: str) -> None:
    near = dumped("near", "10.1.1.7", "n1")
    dump = _with_endpoints(near, loadBalancer={"mode": mode, "routingPreferences": ["Node"]})
    ran = explain("shop/web", "db.shop:80", dump)
    assert "shop/near on n1  10.1.1.7:15008" in ran.out
    assert f"not      shop/db on n2: {why}" in ran.out


def test_a_service_without_an_endpoint_that_could_be_taken_says_why() -> None:
    dump = dump_of([])
    dump["workloads"][2]["status"] = "Unhealthy"
    ran = explain("shop/web", "db.shop:80", dump)
    assert ran.code == Exit.NEGATIVE
    assert "refused at the source: no-healthy-upstream" in ran.out
    assert "1x it is not ready, or leaving" in ran.out


def test_registry_only_is_the_clients_nodes_setting() -> None:
    dump = dump_of([])
    assert explain("shop/web", "203.0.113.9:443", dump).code == Exit.OK
    dump["config"] = {"registryOnly": True}
    ran = explain("shop/web", "203.0.113.9:443", dump)
    assert ran.code == Exit.NEGATIVE
    assert "refused at the source: not-in-registry (203.0.113.9 is no address of a workload or service)" in ran.out


def test_what_was_not_understood_is_refused_with_the_reason() -> None:
    dump = dump_of([])
    dump["workloads"][2]["refused"] = "tunnel_protocol LEGACY_ISTIO_MTLS is not supported"
    for destination in ("shop/db:8080", "db.shop:80"):
        ran = explain("shop/web", destination, dump)
        assert ran.code == Exit.NEGATIVE
        assert "not understood" in ran.out or "not-understood" in ran.out


def test_an_endpoint_known_by_name_only_is_shown_by_its_name() -> None:
    outside = dumped("db", "", "", workloadIps=[], hostname="db.example", protocol="TCP", network="")
    dump = _with_endpoints(outside)
    dump["workloads"][2] = outside
    ran = explain("shop/web", "db.shop:80", dump)
    assert ran.code == Exit.OK, ran.out + ran.err
    assert "db.example:8080, plain TCP" in ran.out
    assert "known by name only" in ran.out


def test_another_network_is_reached_in_two_tunnels() -> None:
    split = dumped("split", "", "", workloadIps=[], network="east", networkGateway={"destination": "east/192.0.2.1"})
    gateway = dumped("gw", "192.0.2.1", "", network="east")
    dump = _with_endpoints(split, subjectAltNames=["spiffe://cluster.local/ns/shop/sa/db"])
    dump["workloads"].append(gateway)
    ran = explain("shop/web", "db.shop:80", dump)
    assert ran.code == Exit.OK, ran.out + ran.err
    assert "192.0.2.1:15008, CONNECT db.shop.svc.cluster.local:80, a second tunnel inside" in ran.out
    assert "the other network decides" in ran.out


def test_a_name_under_a_wildcard_is_that_service() -> None:
    dump = dump_of([])
    dump["services"][0] |= {"hostname": "*.example.com", "name": "all"}
    assert "10.96.0.9:80" in explain("shop/web", "www.example.com:80", dump).out


def test_a_name_that_discovery_does_not_have_is_left_to_resolvers() -> None:
    ran = explain("shop/web", "alias.shop:80", dump_of([]))
    assert ran.code == Exit.FAILURE
    assert "explain the address that they give" in ran.err


def test_clients_of_a_named_network_are_found_by_address() -> None:
    dump = dump_of([ONLY_WEB])
    dump["config"] = {"network": "west"}
    for one in dump["workloads"]:
        one["network"] = "west"
    dump["services"][0]["vips"] = ["west/10.96.0.9"]
    assert explain("10.1.1.2", "10.96.0.9:80", dump).code == Exit.OK
    assert explain("10.1.1.3", "10.96.0.9:80", dump).code == Exit.NEGATIVE


def test_a_pod_with_a_waypoint_of_its_own_is_reached_directly_where_its_services_lead() -> None:
    dump = dump_of([])
    dump["workloads"][2]["waypoint"] = {"destination": "shop/nowhere", "hboneMtlsPort": 15008}
    ran = explain("shop/web", "db.shop:80", dump)
    assert ran.code == Exit.OK, ran.out
    assert explain("shop/outside", "shop/db:9999", dump).code == Exit.NEGATIVE
