"""Workloads that are called by their own addresses: few resources, and nobody gets anywhere else through them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from ambient.waypoint import tunnel
from ambient.waypoint.closed import Closed
from ambient.waypoint.front import Called, Direct
from ambient.waypoint.resources import Made, resources
from ambient.waypoint.typed import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE
from ambient.waypoint.wire import encode
from tests.ambient.waypoint.test_resources import every
from tests.support.waypoint_views import DIRECT, EVERY_DIRECT, LAYER_4, RULE, front, policy, view

AUTO = "service|0|auto.web.shop.workloads"


def table(found: Any) -> dict[str, Any]:
    (made,) = [content for url, name, content in found if (url, name) == (ROUTE_TYPE, tunnel.CONNECT_ROUTES)]
    return {one["name"]: one for one in made["virtual_hosts"]}


def test_connects_reach_the_addresses_of_its_workloads_and_no_other() -> None:
    hosts = table(resources(replace(view(), direct=(DIRECT,))))
    assert {name: one["domains"] for name, one in hosts.items()} == {
        AUTO: ["10.1.2.1:*", "[fd01::1]:*", "10.1.2.2:*"],
        "service|0|http.web.shop.workloads": ["10.1.2.1:8080", "[fd01::1]:8080"],
        "service|0|tcp.web.shop.workloads": ["10.1.2.1:9000", "[fd01::1]:9000"],
    }


def test_every_resource_is_a_message_and_what_is_referred_to_is_there() -> None:
    found = list(resources(EVERY_DIRECT))
    for url, name, content in found:
        encode(url, name, content)
    clusters = {name for url, name, _ in found if url == CLUSTER_TYPE}
    assert every("cluster", [content for _, _, content in found]) <= clusters
    assert len({(url, name) for url, name, _ in found}) == len(found)


def test_there_are_as_many_resources_for_five_thousand_as_for_one() -> None:
    crowd = tuple(Called((ip_address("10.2.0.0") + number,)) for number in range(5000))
    few, many = (
        list(resources(replace(view(), direct=(replace(DIRECT, workloads=some),)))) for some in (crowd[:1], crowd)
    )
    assert len(few) == len(many)
    differing = [old[1] for old, new in zip(few, many, strict=True) if old != new]
    assert differing == [tunnel.CONNECT_ROUTES]


def test_a_tunnel_demands_the_identity_and_asks_for_what_was_dialled() -> None:
    found = {name: content for url, name, content in resources(EVERY_DIRECT) if url == CLUSTER_TYPE}
    (end,) = found["inbound-vip|0|tcp|tcp.web.shop.workloads"]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert end["metadata"]["filter_metadata"]["ambient"] == {"san": DIRECT.identity}
    assert found["inbound-vip|0|tcp|auto.old~plain.shop.workloads"]["type"] == "ORIGINAL_DST"
    listeners = {name: content for url, name, content in resources(EVERY_DIRECT) if url == LISTENER_TYPE}
    for chain in listeners[AUTO]["filter_chains"]:
        assert chain["filters"][0]["name"] == "ambient.dialled"


def test_a_port_that_is_written_in_another_way_leads_nowhere() -> None:
    (route,) = table(resources(EVERY_DIRECT))[AUTO]["routes"]
    (plain,) = route["match"]["headers"]
    assert plain["string_match"] == {"safe_regex": {"regex": ".+:[1-9][0-9]{0,4}"}}


def test_where_a_policy_asks_for_http_what_nobody_declares_is_http_alone() -> None:
    def kinds(*policies: Any) -> set[str]:
        told = replace(view(), direct=(replace(DIRECT, policies=policies),))
        return {name.split("|")[2] for url, name, _ in resources(told) if name.endswith("|auto.web.shop.workloads")} & {
            "http",
            "tcp",
        }

    assert kinds(policy("x", "DENY", LAYER_4)) == {"http", "tcp"}
    assert kinds(policy("x", "DENY", RULE)) == {"http"}


def test_an_address_of_a_workload_is_no_services_whoever_claims_it() -> None:
    thief = replace(front(name="thief"), addresses=(ip_address("10.1.2.1"), ip_address("10.96.0.9")))
    hosts = table(resources(replace(view(thief), direct=(DIRECT,))))
    assert hosts["service|80|thief.shop.svc.cluster.local"]["domains"] == [
        "10.96.0.9:80",
        "thief.shop.svc.cluster.local:80",
    ]


def test_what_envoy_refuses_is_closed_and_left_out_by_name() -> None:
    shut = table(resources(EVERY_DIRECT, Closed(shut=frozenset((AUTO,)))))[AUTO]
    assert shut["routes"] == [{"match": {"connect_matcher": {}}, "direct_response": {"status": 503}}]
    assert AUTO not in table(resources(EVERY_DIRECT, Closed(unlisted=frozenset((AUTO,)))))


def test_what_was_made_is_kept_while_pods_come_and_go() -> None:
    made = Made()
    before = list(resources(EVERY_DIRECT, made=made))
    first, *others = EVERY_DIRECT.direct
    fewer = replace(EVERY_DIRECT, direct=(replace(first, workloads=first.workloads[:1]), *others))
    after = list(resources(fewer, made=made))
    same = {one[1] for one in before if any(one[2] is other[2] for other in after)}
    assert AUTO in same
    assert tunnel.CONNECT_ROUTES not in same
    # The same account with another identity is made anew.
    other = replace(DIRECT, identity="spiffe://other/ns/shop/sa/web")
    found = {name: content for url, name, content in resources(replace(view(), direct=(other,)), made=made)}
    assert "spiffe://other" in str(found["inbound-vip|0|tcp|tcp.web.shop.workloads"])


def test_ports_and_addresses_in_rules_are_those_that_were_dialled() -> None:
    told = replace(view(), direct=(Direct("shop", "web", "", (Called((ip_address("10.1.2.1"),)),), (BY_PORT,)),))
    (host,) = table(resources(told)).values()
    assert "':80'" in str(host["typed_per_filter_config"])
    found = {name: content for url, name, content in resources(told) if url == ROUTE_TYPE}
    assert "{'destination_port': 80}" in str(found[AUTO])


BY_PORT = policy(
    "by-port", "DENY", replace(LAYER_4, operations=(replace(RULE.operations[0], methods=(), paths=(), hosts=()),))
)
