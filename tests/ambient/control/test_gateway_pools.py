"""Where routes of a gateway lead: to endpoints, or to the waypoint before them, and nowhere where that is away."""

from __future__ import annotations

from typing import Any

from ambient.waypoint.front import FrontPort
from tests.ambient.control.test_derive_backend_tls import ROOTS, policy
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


def headless(*waypoint: str) -> list[tuple[str, str, bool]]:
    """Where a service without an address leads, whose pods have such a waypoint: address, through, a tunnel of ours."""
    return sorted((str(one.address), one.through, bool(one.identity)) for one in headless_port(waypoint).backends)


def headless_port(waypoint: tuple[str, ...], *more: dict[str, Any]) -> FrontPort:
    bare = service("bare", HTTP, ip="None", **{"istio.io/use-waypoint": "none"})
    pods = [pod(f"bare-{number}", f"10.1.0.{number}", app="bare") for number in (11, 12)]
    for one, name in zip(pods, waypoint, strict=False):
        one["metadata"]["labels"]["istio.io/use-waypoint"] = name
    door = gateway()
    door["metadata"]["labels"] = {"istio.io/waypoint-for": "workload"}
    found = told(ingress(), to("bare"), WAYPOINT, PROXY, bare, door, *pods, *more)
    (pool,) = found.view.pools
    names = {one.through for one in pool.ports[0].backends if one.through}
    assert {one.name for one in found.view.through} == names
    return pool.ports[0]


def test_a_pods_own_waypoint_begins_no_tls_with_it_so_the_gateway_does_and_sends_nothing_in_plain_text() -> None:
    asked = policy()
    asked["spec"]["targetRefs"][0]["name"] = "bare"
    port = headless_port(("waypoint",), ROOTS, asked)
    assert [one.through for one in port.backends] == ["shop/waypoint", ""]
    assert port.tls is not None
    assert port.tls.sni == "web.example.com"


def test_a_service_without_an_address_is_reached_pod_by_pod_each_through_the_waypoint_that_it_has() -> None:
    free = [("10.1.0.11", "", True), ("10.1.0.12", "", True)]
    assert headless() == free
    assert headless("waypoint") == [("10.1.0.11", "shop/waypoint", False), free[1]]
    assert headless("waypoint", "waypoint")[1] == ("10.1.0.12", "shop/waypoint", False)


def test_a_waypoint_that_is_not_ready_is_none() -> None:
    found = told(ingress(), to("web"), gateway("waypoint", ready=False))
    assert [bool(one.through) for one in found.view.pools[0].ports[0].backends] == [False, False]
