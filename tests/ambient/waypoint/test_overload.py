"""What an Envoy is told to do when it is overloaded."""

from __future__ import annotations

from ambient.waypoint.bootstrap import Identification, bootstrap
from ambient.waypoint.overload import Bearable, overload
from ambient.waypoint.typed import PREFIX
from ambient.waypoint.wire import encode

WHO = Identification("shop", "waypoint", "waypoint-1", "10.1.1.1")


def test_connections_are_bounded_always_and_the_heap_where_it_is_asked_for() -> None:
    (connections,) = overload(Bearable(7))["resource_monitors"]
    assert connections["typed_config"]["max_active_downstream_connections"] == 7
    made = overload(Bearable(7, 64))
    assert made["resource_monitors"][1]["typed_config"]["max_heap_size_bytes"] == 64 * 1024 * 1024
    triggers = {one["name"]: one["triggers"][0]["threshold"]["value"] for one in made["actions"]}
    assert triggers == {
        "envoy.overload_actions.shrink_heap": 0.9,
        "envoy.overload_actions.stop_accepting_requests": 0.95,
    }


def test_it_is_part_of_what_envoy_starts_with() -> None:
    made = bootstrap(WHO, agent_socket="/a", admin_socket="/b", most=Bearable(5, 99))
    assert made["overload_manager"] == overload(Bearable(5, 99))
    encode(f"{PREFIX}envoy.config.bootstrap.v3.Bootstrap", "bootstrap", made)
