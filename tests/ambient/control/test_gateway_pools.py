"""Where routes of a gateway lead: to endpoints, or to the waypoint before them, and nowhere where that is away."""

from __future__ import annotations

from typing import Any

from tests.support.gateway_records import ingress, route, told
from tests.support.waypoint_records import gateway, pod, service

HTTP = {"name": "http", "port": 80, "targetPort": 8080}
WAYPOINT = service("waypoint", {"name": "mesh", "port": 15008}, ip="10.96.0.8", **{"istio.io/use-waypoint": "none"})
PROXY = pod("waypoint-1", "10.1.0.8", app="waypoint")


def to(name: str) -> dict[str, Any]:
    return route("r", {"backendRefs": [{"name": name, "port": 80}]})


def test_a_service_without_a_waypoint_is_reached_at_its_endpoints_of_the_port_that_is_meant() -> None:
    free = service("free", HTTP, {"name": "b", "port": 81}, ip="10.96.0.7", **{"istio.io/use-waypoint": "none"})
    found = told(ingress(), to("free"), free, pod("free-1", "10.1.0.7", app="free"))
    (pool,) = found.view.pools
    assert [(one.number, [str(each.address) for each in one.backends]) for one in pool.ports] == [(80, ["10.1.0.7"])]
    assert found.view.through == ()


def test_a_service_behind_a_waypoint_is_reached_through_its_proxies_alone() -> None:
    found = told(ingress(), to("web"), WAYPOINT, PROXY)
    (pool,) = found.view.pools
    (backend,) = pool.ports[0].backends
    assert (str(backend.address), backend.port, backend.identity, backend.through) == (
        "10.96.0.1",
        80,
        "",
        "shop/waypoint",
    )
    (through,) = found.view.through
    assert (through.addresses, through.identities) == (("10.1.0.8",), ("spiffe://cluster.local/ns/shop/sa/web",))


def test_a_waypoint_that_has_no_proxy_leads_nowhere() -> None:
    for objects in ((WAYPOINT,), (WAYPOINT, pod("waypoint-1", "10.1.0.8", app="waypoint", ready=False)), ()):
        found = told(ingress(), to("web"), *objects)
        assert [one.addresses for one in found.view.through] == [()]
        assert [one.through for one in found.view.pools[0].ports[0].backends] == ["shop/waypoint"]


def test_a_waypoint_that_is_not_ready_is_none() -> None:
    found = told(ingress(), to("web"), gateway("waypoint", ready=False))
    assert [bool(one.through) for one in found.view.pools[0].ports[0].backends] == [False, False]
