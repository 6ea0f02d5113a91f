"""The table of CONNECT routes: exactly the names and addresses of services, each to a listener of its own."""

from __future__ import annotations

from ambient.waypoint.front import Front
from ambient.waypoint.tunnel import Row, connect_routes, entrance, inner, originate, table_of, terminate
from ambient.waypoint.typed import Message
from tests.support.waypoint_views import front, view


def row(service: Front, port: int, filters: Message, *used: str) -> Row:
    return Row(service, port, entrance(service, port, used or ("http",)), filters)


def test_a_service_is_found_by_each_of_its_addresses_and_by_its_name() -> None:
    web, db = front(), front(name="db")
    first, second = connect_routes([row(web, 80, {}), row(db, 5432, {}, "tcp")])["virtual_hosts"]
    assert first["domains"] == ["10.96.0.1:80", "[fd96::1]:80", "web.shop.svc.cluster.local:80"]
    assert first["routes"][0]["route"]["cluster"] == "service|80|web.shop.svc.cluster.local"
    assert second["name"] == "service|5432|db.shop.svc.cluster.local"
    assert second["routes"][0]["route"]["cluster"] == "service|5432|db.shop.svc.cluster.local|tcp"


def test_a_port_that_is_used_otherwise_is_another_listener_and_asks_for_the_same_table() -> None:
    web = front()
    names = [entrance(web, 80, used) for used in (("http",), ("tcp",), ("http", "tcp"))]
    assert len(set(names)) == 3
    assert {table_of(name) for name in names} == {inner(web, 80)}
    assert table_of("inbound-vip|80|http|web") == "inbound-vip|80|http|web"


def test_what_has_to_be_passed_stands_with_the_service_that_it_is_for() -> None:
    web = front()
    first, second = connect_routes([row(web, 80, {"f": {}}), row(web, 81, {})])["virtual_hosts"]
    assert first["typed_per_filter_config"] == {"f": {}}
    assert "typed_per_filter_config" not in second


def test_identities_travel_as_values_that_keep_connections_apart() -> None:
    manager = terminate(view())["filter_chains"][0]["filters"][0]["typed_config"]
    entries = manager["http_filters"][0]["typed_config"]["on_request_headers"]
    factories = {one["object_key"]: one.get("factory_key") for one in entries}
    assert factories["io.istio.peer_principal"] == "envoy.hashable_string"


def test_a_tunnel_to_an_endpoint_demands_the_endpoints_own_identity() -> None:
    exact = originate()["filter_chains"][0]["filters"][0]["typed_config"]["on_new_connection"][0]
    assert exact["object_key"] == "envoy.network.upstream_subject_alt_names"
