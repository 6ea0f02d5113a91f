"""Who counts for all proxies, and what is said of routes while nobody does."""

from __future__ import annotations

from typing import Any

from ambient.control.derive import Derivation
from ambient.control.derive_front import Fronts
from ambient.control.derive_limiter import COUNTED, Counting
from ambient.control.derive_world import DeriveSettings
from ambient.control.waypoints import Waypoints
from ambient.kube.networking import Gateway
from ambient.kube.objects import Condition, Records, parse_object
from ambient.waypoint.shared_limits import LIMITER
from ambient.waypoint.typed import ENDPOINT_TYPE
from tests.support.builders import raw
from tests.support.gateway_records import ingress
from tests.support.gateway_records import route as gateway_route
from tests.support.waypoint_records import derived, pod, scene, service

HOST = "counter.shop.svc.cluster.local"
COUNTING = Counting(HOST, 8081)
COUNTER = service("counter", {"name": "grpc", "port": 8081}, ip="10.96.0.7")
KEY = "HTTPRoute/shop/web"


def route(limits: str) -> dict[str, Any]:
    spec = {
        "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
        "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
    }
    made = raw("HTTPRoute", "web", spec, namespace="shop")
    made["apiVersion"] = "gateway.networking.k8s.io/v1"
    made["metadata"]["annotations"] = {"ambient.mesh/rate-limit": limits}
    return made


def said(made: Waypoints, *objects: dict[str, Any]) -> Condition | None:
    found = scene(*objects)
    made.update(found, derived(found))
    told = made.with_gateways({}).get(KEY, ())
    return next((one for one in told if one.type == COUNTED), None)


def waypoints(counting: Counting | None = COUNTING) -> Waypoints:
    return Waypoints(("cluster.local",), "istio-system", "cluster.local", counting=counting)


def test_of_a_limit_that_each_proxy_counts_nothing_is_said() -> None:
    assert said(waypoints(), route("5/s, client 6/s")) is None


def test_a_mesh_without_the_service_says_so_and_what_becomes_of_requests() -> None:
    found = said(waypoints(None), route("global 5/s"))
    assert found is not None
    assert (found.status, found.reason) == ("False", "NotConfigured")
    assert found.message.endswith("; until then requests pass uncounted")
    found = said(waypoints(None), route("global 5/s deny"))
    assert found is not None
    assert "requests pass" not in found.message
    assert found.message.endswith("those of a limit with deny are refused")


def test_a_service_that_is_not_there_or_not_ready_is_said_until_it_is() -> None:
    made = waypoints()
    steps = [
        ((), ("False", "NotFound")),
        ((COUNTER,), ("False", "NotReady")),
        ((COUNTER, pod("counter-1", "10.1.0.7", ready=False, app="counter")), ("False", "NotReady")),
        ((COUNTER, pod("counter-1", "10.1.0.7", app="counter")), ("True", "Counted")),
        ((COUNTER, pod("counter-1", "10.1.0.7", ready=False, app="counter")), ("False", "NotReady")),
    ]
    for objects, expected in steps:
        found = said(made, route("global 5/s deny"), *objects)
        assert found is not None
        assert (found.status, found.reason) == expected


def test_proxies_are_told_of_its_endpoints() -> None:
    made = waypoints()
    assert said(made, route("global 5/s"), COUNTER, pod("counter-1", "10.1.0.7", app="counter")) is not None
    (served,) = made._served.values()
    content, _ = served.made[ENDPOINT_TYPE, LIMITER]
    (endpoint,) = content["endpoints"][0]["lb_endpoints"]
    assert endpoint["metadata"]["filter_metadata"]["ambient"]["san"].endswith("/ns/shop/sa/web")


def test_a_route_on_a_gateway_says_it_with_the_gateway() -> None:
    made = waypoints(None)
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    on_gateway = gateway_route("web")
    on_gateway["metadata"]["annotations"] = {"ambient.mesh/rate-limit": "global 5/s"}
    found = scene(ingress(listener), on_gateway)
    made.update(found, derived(found))
    (parent,) = made.parents()[KEY]
    assert COUNTED in {one.type for one in parent.conditions}


def test_a_gateway_is_told_when_only_the_endpoints_of_the_service_have_changed() -> None:
    fronts, derivation = Fronts(("cluster.local",), "istio-system", counting=COUNTING), Derivation(DeriveSettings())
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    start = scene(ingress(listener), COUNTER, pod("counter-1", "10.1.0.7", app="counter"))
    gateway = start.find(Gateway, "shop", "front")
    assert gateway is not None
    moved = parse_object(pod("counter-1", "10.1.0.8", app="counter"), "test")
    after = Records(start.revision + 1, {**start.by_key, moved.key: moved}, changed=frozenset({moved.key}))
    for records, address in ((start, "10.1.0.7"), (after, "10.1.0.8")):
        fronts.update(records, derivation.update(records))
        limiter = fronts.told(gateway).view.limiter
        assert limiter is not None
        assert [str(one.address) for one in limiter.ports[0].backends] == [address]
