"""The table of CONNECT routes: exactly the names and addresses of services, each to a listener of its own."""

from __future__ import annotations

from ambient.waypoint.tunnel import connect_routes, originate, terminate
from tests.support.waypoint_views import front, view


def test_a_service_is_found_by_each_of_its_addresses_and_by_its_name() -> None:
    web, db = front(), front(name="db")
    first, second = connect_routes([(web, 80, {}), (db, 5432, {})])["virtual_hosts"]
    assert first["domains"] == ["10.96.0.1:80", "[fd96::1]:80", "web.shop.svc.cluster.local:80"]
    assert first["routes"][0]["route"]["cluster"] == "service|80|web.shop.svc.cluster.local"
    assert second["routes"][0]["route"]["cluster"] == "service|5432|db.shop.svc.cluster.local"


def test_what_has_to_be_passed_stands_with_the_service_that_it_is_for() -> None:
    web = front()
    first, second = connect_routes([(web, 80, {"f": {}}), (web, 81, {})])["virtual_hosts"]
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
