"""The whole of a waypoint's configuration: as it is written down, complete in itself, and taken by Envoy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ambient.waypoint.front import FrontPort, Protocol
from ambient.waypoint.resources import resources
from ambient.waypoint.service import served
from ambient.waypoint.shared_limits import LIMITER
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE
from ambient.waypoint.wire import encode
from tests.support.waypoint_views import EVERY_KIND, LAYER_4, RULE, TUNNEL, front, policy, view

GOLDEN = Path(__file__).parents[2] / "golden" / "waypoint" / "every-kind.json"


def every(name: str, value: Any) -> set[str]:
    """All values of fields of this name, at any depth."""
    if isinstance(value, dict):
        own = {value[name]} if isinstance(value.get(name), str) else set()
        return own.union(*(every(name, one) for one in value.values()))
    return set().union(*(every(name, one) for one in value)) if isinstance(value, list) else set()


def test_it_is_what_is_written_down() -> None:
    """After a change that is meant: write what `resources` gives into the file, and read the difference."""
    found = [{"type": url, "name": name, "content": content} for url, name, content in resources(EVERY_KIND)]
    assert found == json.loads(GOLDEN.read_text())


def test_every_resource_is_a_message_of_its_type_and_carries_its_name() -> None:
    for url, name, content in resources(EVERY_KIND):
        encode(url, name, content)
        assert content.get("name", content.get("cluster_name")) == name


def test_what_is_referred_to_is_there() -> None:
    names: dict[str, set[str]] = {CLUSTER_TYPE: set(), ENDPOINT_TYPE: set(), LISTENER_TYPE: set(), ROUTE_TYPE: set()}
    content = []
    for url, name, one in resources(EVERY_KIND):
        assert name not in names[url]
        names[url].add(name)
        content.append(one)
    assert every("cluster", content) <= names[CLUSTER_TYPE]
    assert every("server_listener_name", content) <= names[LISTENER_TYPE]
    assert every("service_name", content) == names[ENDPOINT_TYPE]
    assert every("route_config_name", content) == names[ROUTE_TYPE]


def test_a_policy_changes_routes_alone() -> None:
    def but_for_routes(*policies: Any) -> list[Any]:
        ports = (FrontPort(80, Protocol.HTTP, (TUNNEL,)), FrontPort(9000, Protocol.TCP, (TUNNEL,)))
        found = resources(view(front(*policies, ports=ports)))
        return [one for one in found if one[0] != ROUTE_TYPE]

    assert but_for_routes() == but_for_routes(policy("x", "DENY", RULE))


def test_an_endpoint_changes_its_load_assignment_alone() -> None:
    one = FrontPort(80, Protocol.HTTP, (TUNNEL,))
    before = list(resources(view(front(ports=(one,)))))
    after = list(resources(view(front(ports=(replace(one, backends=()),)))))
    differing = {old[0] for old, new in zip(before, after, strict=True) if old != new}
    assert differing == {ENDPOINT_TYPE}


def test_a_port_of_unknown_protocol_is_http_alone_where_a_policy_asks_for_http() -> None:
    port = FrontPort(7000, Protocol.AUTO)
    assert served(front(), port) == ("http", "tcp")
    assert served(front(policy("x", "DENY", LAYER_4)), port) == ("http", "tcp")
    assert served(front(policy("x", "DENY", RULE)), port) == ("http",)


def test_a_port_of_unknown_protocol_is_http_alone_where_its_owners_routes_say_what_may_be_asked_for() -> None:
    """Else whoever says nothing at first would be carried unread: past its limits, and to paths that no route has."""
    ports = (FrontPort(7000, Protocol.AUTO, (TUNNEL,)), FrontPort(7001, Protocol.AUTO, (TUNNEL,)))
    found = replace(front(ports=ports), read=frozenset({7000}))
    assert [served(found, port) for port in ports] == [("http",), ("http", "tcp")]
    only, either = (one for url, name, one in resources(view(found)) if url == LISTENER_TYPE and "|700" in name)
    assert [one["name"] for one in only["filter_chains"]] == ["http"]
    assert [one["name"] for one in either["filter_chains"]] == ["http", "tcp"]
    # Nor is he who takes his time turned away.
    assert "filter_chain_match" not in only["filter_chains"][0]
    assert "listener_filters_timeout" not in only


def test_weights_keep_their_ratio_and_their_sum_is_one_that_envoy_takes() -> None:
    port = FrontPort(80, Protocol.HTTP, tuple(replace(TUNNEL, weight=one) for one in (2**32 - 1, 2**32 - 1, 2**31, 1)))
    tables = [content for url, _, content in resources(view(front(ports=(port,)))) if url == ENDPOINT_TYPE]
    (table,) = [one for one in tables if one["cluster_name"] != LIMITER]
    found = [one["load_balancing_weight"] for one in table["endpoints"][0]["lb_endpoints"]]
    assert sum(found) < 2**32
    assert (found[0], round(found[0] / found[2], 3), found[3]) == (found[1], 2, 1)
