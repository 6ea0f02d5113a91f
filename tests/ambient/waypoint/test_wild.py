"""Wildcard hosts at a waypoint: as written down, and what no client gets past."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ambient.kube.routing import PathMatch, Rewrite, RouteMatch, RouteRule
from ambient.waypoint.bootstrap import ASKED_NAMES_PORT, NAMES_PORT, Identification, bootstrap
from ambient.waypoint.front import Destination, Front, Origination, Route, Stream, Wild
from ambient.waypoint.resources import resources
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE, Message
from ambient.waypoint.wire import encode
from tests.support.waypoint_views import EVERY_WILD, TUNNEL, view

GOLDEN = Path(__file__).parents[2] / "golden" / "waypoint" / "wild.json"
(WILD,) = EVERY_WILD.fronts


def made(front: Front = WILD) -> Mapping[tuple[str, str], Message]:
    return {(url, name): content for url, name, content in resources(view(front))}


def test_it_is_what_is_written_down() -> None:
    """After a change that is meant: write what `resources` gives into the file, and read the difference."""
    found = [
        {"type": url, "name": name, "content": content}
        for url, name, content in resources(EVERY_WILD)
        if "example.com" in name
    ]
    assert found == json.loads(GOLDEN.read_text())
    for one in resources(EVERY_WILD):
        encode(*one)


def hosts(front: Front, port: int) -> Mapping[str, Any]:
    """What becomes of a request, by domain."""
    table = made(front)[ROUTE_TYPE, f"service|{port}|*.example.com"]
    return {domain: one["routes"][0] for one in table["virtual_hosts"] for domain in one["domains"]}


def test_requests_for_other_hosts_and_ports_get_no_further() -> None:
    found = hosts(WILD, 80)
    led = {domain for domain, route in found.items() if "route" in route}
    assert led == {"*.example.com", "*.example.com:80"}
    refused = {domain: route["direct_response"]["status"] for domain, route in found.items() if domain not in led}
    assert refused.pop("*") == 404
    assert refused == {
        name: 421
        for one in ("*.deep.example.com", "api.example.com")
        for name in (one, f"{one}:80")
    }  # fmt: skip


def test_the_policies_stand_before_the_look_up() -> None:
    listener = made()[LISTENER_TYPE, "service|80|*.example.com"]
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    names = [one["name"] for one in filters]
    assert names[-2:] == ["envoy.filters.http.dynamic_forward_proxy", "envoy.filters.http.router"]
    assert names.index("ambient.rbac.allow") < names.index("ambient.asked_host") < len(names) - 2
    table = made()[ROUTE_TYPE, "service|80|*.example.com"]
    assert set(table["virtual_hosts"][0]["typed_per_filter_config"]) == {"ambient.rbac.deny", "ambient.rbac.allow"}


def resolvers(value: Any) -> set[tuple[str, bool]]:
    """Every resolver that is asked: its port, and whether names are completed."""
    if isinstance(value, list):
        return set().union(*map(resolvers, value))
    if not isinstance(value, dict):
        return set()
    found = set().union(*map(resolvers, value.values()))
    if "typed_dns_resolver_config" in value:
        config = value["typed_dns_resolver_config"]["typed_config"]
        (where,) = config["resolvers"]
        completed = not config["dns_resolver_options"]["no_default_search_domain"]
        found.add((where["socket_address"]["port_value"], completed))
    return found


def test_names_are_looked_up_by_the_agent_alone() -> None:
    for (url, _), content in made().items():
        if url in (CLUSTER_TYPE, LISTENER_TYPE) and "dynamic_forward_proxy" in json.dumps(content):
            assert resolvers(content) == {(ASKED_NAMES_PORT, False)}
    who = Identification("shop", "waypoint", "waypoint-1", "10.1.1.1")
    assert resolvers(bootstrap(who, agent_socket="/a", admin_socket="/b")) == {(NAMES_PORT, True)}


def test_a_name_of_tls_is_one_of_the_services_or_nobody_is_connected() -> None:
    listener = made()[LISTENER_TYPE, "service|443|*.example.com|tcp"]
    chains = {tuple(one["filter_chain_match"]["server_names"]): one["filters"] for one in listener["filter_chains"]}
    own, others = chains.pop(("*.example.com",)), chains.pop(("*.deep.example.com", "api.example.com"))
    assert not chains, "no chain is for all"
    assert [one["name"].rpartition(".")[2] for one in own] == ["sni_dynamic_forward_proxy", "tcp_proxy"]
    assert [one["typed_config"]["cluster"] for one in others] == ["nowhere"]


def test_streams_for_other_names_are_none_of_its() -> None:
    here = (Destination("*.example.com", 443),)
    streams = (Stream(443, here, ("a.example.com", "evil.example.org", "api.example.com")), Stream(443, here))
    listener = made(replace(WILD, streams=streams))[LISTENER_TYPE, "service|443|*.example.com|tcp"]
    names = [one["filter_chain_match"]["server_names"] for one in listener["filter_chains"]]
    assert names == [["a.example.com"], ["*.example.com"], ["*.deep.example.com", "api.example.com"]]


def test_no_name_is_for_two_streams_and_none_that_others_have_is_taken() -> None:
    """Envoy refuses a listener with the same match twice."""
    here = (Destination("*.example.com", 443),)
    names = ("*.example.com", "a.deep.example.com", "*.x.deep.example.com", "*.deep.example.com")
    streams = (Stream(443, here, names), Stream(443, here, ("b.example.com", "*.example.com")), Stream(443, here))
    listener = made(replace(WILD, streams=streams))[LISTENER_TYPE, "service|443|*.example.com|tcp"]
    found = [one["filter_chain_match"]["server_names"] for one in listener["filter_chains"]]
    assert found == [["*.example.com"], ["b.example.com"], ["*.deep.example.com", "api.example.com"]]


@pytest.mark.parametrize("weights", [(("web.shop.svc.cluster.local", 1),), (("*.example.com", 0), ("web", 1))])
def test_a_stream_that_leads_inside_is_not_looked_up(weights: tuple[tuple[str, int], ...]) -> None:
    inside = tuple(Destination(host, 443, weight) for host, weight in weights)
    listener = made(replace(WILD, streams=(Stream(443, inside, ("a.example.com",)),)))[
        LISTENER_TYPE, "service|443|*.example.com|tcp"
    ]
    first, second, _ = (json.dumps(one["filters"]) for one in listener["filter_chains"])
    assert ("sni_dynamic_forward_proxy" in first, "sni_dynamic_forward_proxy" in second) == (False, True)


@pytest.mark.parametrize("domain", ["169.254", "0.0.1", "0x7f", "localhost", "a.localhost"])
def test_nothing_leads_to_a_wildcard_over_addresses(domain: str) -> None:
    """A resolver reads these itself, and asks nobody who could refuse."""
    host = f"*.{domain}"
    front = replace(WILD, hostname=host, ports=tuple(replace(one, wild=Wild(domain, 443)) for one in WILD.ports))
    found = made(front)
    assert [one["domains"] for one in found[ROUTE_TYPE, f"service|80|{host}"]["virtual_hosts"]] == [["*"]]
    (chain,) = found[LISTENER_TYPE, f"service|443|{host}|tcp"]["filter_chains"]
    assert [one["typed_config"].get("cluster") for one in chain["filters"]] == ["nowhere"]


def options(port: int) -> Message:
    cluster = made()[CLUSTER_TYPE, f"inbound-vip|{port}|http|*.example.com"]
    (found,) = cluster["typed_extension_protocol_options"].values()
    named: Message = found.get("upstream_http_protocol_options", {})
    return named


def test_tls_is_begun_with_whom_the_client_asks_for_where_nobody_says_another() -> None:
    assert options(80) == {"auto_sni": True, "auto_san_validation": True}
    assert options(81) == {}
    assert options(82) == {"auto_sni": True}
    assert SECRET_TYPE in {url for url, _ in made()}


def test_a_route_that_makes_another_host_of_it_changes_nobody_who_is_connected_to() -> None:
    rule = RouteRule(rewrite=Rewrite(hostname="evil.example.org"))
    match, here = RouteMatch(path=PathMatch("PathPrefix", "/")), (Destination("*.example.com", 80),)
    front = replace(WILD, routes=(Route("r", 80, match, rule, here),))
    action = hosts(front, 80)["*.example.com"]["route"]
    assert action["host_rewrite_literal"] == "evil.example.org"
    filters = made(front)[LISTENER_TYPE, "service|80|*.example.com"]["filter_chains"][0]["filters"][0]
    chain = {one["name"]: one.get("typed_config", {}) for one in filters["typed_config"]["http_filters"]}
    set_first = chain["ambient.asked_host"]["on_request_headers"]
    assert [one["object_key"] for one in set_first] == ["envoy.upstream.dynamic_host", "envoy.upstream.dynamic_port"]
    assert chain["envoy.filters.http.dynamic_forward_proxy"]["allow_dynamic_host_from_filter_state"] is True


@pytest.mark.parametrize("port", [80, 443])
def test_a_port_that_is_shut_has_no_endpoint_at_all(port: int) -> None:
    ports = tuple(replace(one, wild=None) for one in WILD.ports if one.number == port)
    found = made(replace(WILD, ports=ports))
    kind = "http" if port == 80 else "tcp"
    assert found[CLUSTER_TYPE, f"inbound-vip|{port}|{kind}|*.example.com"]["type"] == "EDS"
    (group,) = found[ENDPOINT_TYPE, f"inbound-vip|{port}|{kind}|*.example.com"]["endpoints"]
    assert group["lb_endpoints"] == []


def test_others_have_nothing_of_it() -> None:
    plain = replace(WILD, ports=tuple(replace(one, wild=None, tls=None, backends=(TUNNEL,)) for one in WILD.ports))
    assert "dynamic" not in json.dumps(list(resources(view(plain))))
    assert Origination("").as_asked is False
