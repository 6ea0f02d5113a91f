"""What Envoy is started with: a valid file that gives nobody the admin interface."""

from __future__ import annotations

from ambient.waypoint.bootstrap import Identification, bootstrap
from ambient.waypoint.typed import PREFIX
from ambient.waypoint.wire import encode

MADE = bootstrap(Identification("shop", "waypoint", "waypoint-1", "10.1.1.1"), agent_socket="/a", admin_socket="/b")


def test_it_is_a_bootstrap() -> None:
    encode(f"{PREFIX}envoy.config.bootstrap.v3.Bootstrap", "bootstrap", MADE)
    assert MADE["node"]["id"] == "waypoint~10.1.1.1~waypoint-1.shop~shop.svc.cluster.local"


def test_whether_it_is_ready_is_told_however_many_connections_there_are() -> None:
    assert [one["ignore_global_conn_limit"] for one in MADE["static_resources"]["listeners"]] == [True, True]


def test_the_admin_interface_is_on_a_socket_and_two_paths_of_it_are_told() -> None:
    assert MADE["admin"]["address"] == {"pipe": {"path": "/b", "mode": 0o600}}
    routes = [
        route
        for listener in MADE["static_resources"]["listeners"]
        for host in listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
        for route in host["routes"]
    ]
    assert [route["match"] for route in routes] == [{"path": "/healthz/ready"}, {"path": "/stats/prometheus"}]
