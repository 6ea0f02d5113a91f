"""An ingress gateway: clients outside of the mesh, meshed pods behind it, and what is refused on the way.

Real Envoy, real ztunnels, real requests. Each refusal has beside it the same request that passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ambient.kube.objects import Gateway, HTTPRoute, Service
from tests.support.gateway_lab import (
    GATEWAY,
    IDENTITY,
    LISTENER,
    POD,
    ask,
    at_gateway,
    gateway_lab,
    guarded_yaml,
    ingress_yaml,
    removed,
    route_yaml,
    settled,
    statuses,
    to,
)
from tests.support.lab import LabUnderTest, namespace_yaml, object_yaml, until
from tests.support.waypoint_lab import POLICY_VERSION, policy_yaml, ready

LISTENERS = (
    {**LISTENER, "allowedRoutes": {"namespaces": {"from": "Same"}}},
    {"name": "apps", "port": 80, "protocol": "HTTP", "hostname": "*.apps.example.com"},
)
ROUTES = (
    route_yaml("web", to("web"), hosts=("web.example.com",), sectionName="http")
    + route_yaml("apps", to("web", matches=[{"path": {"value": "/app"}}]), sectionName="apps")
    + route_yaml("guarded", to("guarded"), hosts=("guarded.example.com",), sectionName="http")
)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with gateway_lab(guarded_yaml() + ROUTES, *LISTENERS) as lab:
        ready(lab, "shop/waypoint")
        yield lab


def code(lab: LabUnderTest, host: str = "web.example.com", *words: str, path: str = "") -> int:
    return ask(lab, host, *words, path=path)[0]


def test_a_request_from_outside_reaches_a_meshed_pod_over_the_gateways_own_identity(lab: LabUnderTest) -> None:
    status, heard = ask(lab, "web.example.com", path="a?b=c")
    assert (status, heard["pod"], heard["path"]) == (200, "web-1", "/a?b=c")
    assert heard["peer"] == lab.ip(POD)
    assert heard["headers"]["x-forwarded-for"] == lab.ip("outside/client")
    # Nobody but the gateway's account is let in now: it is what the pod's ztunnel sees.
    rule = {"from": [{"source": {"principals": [IDENTITY]}}]}
    only = object_yaml(POLICY_VERSION, "AuthorizationPolicy", "only", "shop", spec={"action": "ALLOW", "rules": [rule]})
    lab.apply(only)
    assert code(lab) == 200
    other = only.replace("front-istio", "somebody-else")
    lab.apply(other)
    assert code(lab) == 503
    lab.delete(other)
    assert code(lab) == 200


def test_routes_belong_to_the_listener_whose_host_they_are_for(lab: LabUnderTest) -> None:
    found = [
        code(lab, host, path=path)
        for host, path in (
            ("web.example.com", "app"),
            ("WEB.example.com", ""),
            ("a.apps.example.com", "app"),
            ("a.apps.example.com", ""),
            ("apps.example.com", "app"),
            ("other.example.com", ""),
        )
    ]
    assert found == [200, 200, 200, 404, 404, 404]


def test_policies_for_the_gateway_judge_by_method_path_host_and_address(lab: LabUnderTest) -> None:
    own = lab.ip("outside/client")
    forged = ["-H", "x-forwarded-for: 192.0.2.1"]
    rules: list[tuple[str, dict[str, Any], list[int]]] = [
        ("DENY", {"to": [{"operation": {"methods": ["DELETE"], "paths": ["/admin/*"]}}]}, [200, 200, 403]),
        ("ALLOW", {"to": [{"operation": {"hosts": ["web.example.com"], "notPaths": ["/admin/*"]}}]}, [200, 403, 403]),
        ("ALLOW", {"from": [{"source": {"ipBlocks": [own]}}]}, [200, 200, 200]),
        ("DENY", {"from": [{"source": {"ipBlocks": [own]}}]}, [403, 403, 403]),
        ("ALLOW", {"from": [{"source": {"principals": ["*"]}}]}, [403, 403, 403]),
    ]
    for action, rule, wanted in rules:
        settled(lab, at_gateway("one", action, rule))
        plain, admin = code(lab, "web.example.com", *forged), code(lab, path="admin/x")
        assert [plain, admin, code(lab, "web.example.com", "-X", "DELETE", path="admin%2Fx")] == wanted
    removed(lab, at_gateway("one", "DENY"))
    assert code(lab, "web.example.com", "-X", "DELETE", path="admin/x") == 200


def test_a_service_behind_a_waypoint_is_reached_through_that_and_judged_there(lab: LabUnderTest) -> None:
    status, heard = ask(lab, "guarded.example.com")
    assert (status, heard["pod"], heard["peer"]) == (200, "guarded-1", lab.ip("shop/waypoint"))
    denied = policy_yaml("no-admin", "DENY", {"to": [{"operation": {"paths": ["/admin"]}}]}, service="guarded")
    lab.apply(denied)
    ready(lab, "shop/waypoint")
    assert [code(lab, "guarded.example.com", path=path) for path in ("admin", "free")] == [403, 200]
    by_name = {"from": [{"source": {"principals": [IDENTITY]}}]}
    lab.apply(policy_yaml("no-admin", "DENY", by_name, service="guarded"))
    ready(lab, "shop/waypoint")
    assert code(lab, "guarded.example.com", path="free") == 403
    lab.delete(denied)
    ready(lab, "shop/waypoint")
    assert code(lab, "guarded.example.com", path="free") == 200


def test_who_the_client_is_is_said_by_proxies_that_are_trusted_and_by_nobody_else(lab: LabUnderTest) -> None:
    named = ["-H", "x-forwarded-for: 192.0.2.1"]
    denied = at_gateway("far", "DENY", {"from": [{"source": {"remoteIpBlocks": ["192.0.2.1"]}}]})
    settled(lab, denied)
    assert (code(lab), code(lab, "web.example.com", *named)) == (200, 200)
    settled(lab, ingress_yaml(*LISTENERS, annotations={"ambient.mesh/trusted-proxies": "1"}))
    assert (code(lab), code(lab, "web.example.com", *named)) == (200, 403)
    removed(lab, denied)
    settled(lab, ingress_yaml(*LISTENERS, annotations={"ambient.mesh/proxy-protocol": "true"}))
    assert (code(lab), code(lab, "web.example.com", "--haproxy-protocol")) == (0, 200)
    settled(lab, ingress_yaml(*LISTENERS))
    assert code(lab) == 200


def test_the_gateway_and_its_routes_say_how_they_are(lab: LabUnderTest) -> None:
    foreign_route = route_yaml("foreign", to("web"), hosts=("foreign.example.com",), namespace="third")
    elsewhere = namespace_yaml("third") + foreign_route
    lost = route_yaml("lost", to("absent"), hosts=("lost.example.com",), sectionName="http")
    settled(lab, elsewhere + lost)

    def listeners() -> dict[str, tuple[int, dict[str, tuple[str, str]]]]:
        gateway = lab.lab.records().find(Gateway, "shop", "front")
        listed = gateway.raw.get("status", {}).get("listeners", []) if gateway is not None else []
        return {one["name"]: (one["attachedRoutes"], statuses(one["conditions"])) for one in listed}

    well = {
        "Accepted": ("True", "Accepted"),
        "Programmed": ("True", "Programmed"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
        "Conflicted": ("False", "NoConflicts"),
    }
    until("what is said of the listeners", lambda: listeners() == {"http": (3, well), "apps": (1, well)})
    service = lab.lab.records().find(Service, "shop", "front-istio")
    assert service is not None
    own = [str(one) for one in service.cluster_ips]

    def assigned() -> list[str]:
        gateway = lab.lab.records().find(Gateway, "shop", "front")
        return [one.value for one in gateway.assigned] if gateway is not None else []

    until("its addresses are those of its Service", lambda: assigned() == own)

    def parents(namespace: str, name: str) -> list[dict[str, tuple[str, str]]]:
        route = lab.lab.records().find(HTTPRoute, namespace, name)
        listed = route.raw.get("status", {}).get("parents", []) if route is not None else []
        return [statuses(one["conditions"]) for one in listed]

    good, resolved = ("True", "Accepted"), ("True", "ResolvedRefs")
    until("of a good route", lambda: parents("shop", "web") == [{"Accepted": good, "ResolvedRefs": resolved}])
    nobody = {"Accepted": good, "ResolvedRefs": ("False", "BackendNotFound")}
    until("of one that leads to nobody", lambda: parents("shop", "lost") == [nobody])
    (foreign,) = until("of one that may not be there", lambda: parents("third", "foreign"))
    assert foreign["Accepted"] == ("False", "NotAllowedByListeners")
    assert (code(lab, "lost.example.com"), code(lab, "foreign.example.com")) == (500, 404)
    removed(lab, elsewhere + lost)


def test_a_gateway_asks_an_application_no_more_at_a_time_than_its_owner_says(lab: LabUnderTest) -> None:
    policy = {"connectionPool": {"http": {"http2MaxRequests": 1}}}
    spec = {"host": "web.shop.svc.cluster.local", "trafficPolicy": policy}
    rule = object_yaml("networking.istio.io/v1", "DestinationRule", "bears", "shop", spec=spec)
    settled(lab, rule)
    assert [code(lab) for _ in range(3)] == [200] * 3
    where = f"web.example.com:80:{lab.ip(POD)}"
    with lab.start(
        "outside/client", "curl", "-s", "-m", "100", "--resolve", where, "http://web.example.com/hang"
    ) as held:
        until("the server has the request", lambda: "hangs" in lab.run("logs", "shop/web-1").stdout)
        assert code(lab) == 503, "the next request is turned away"
        removed(lab, rule)
        until("without the rule it is asked again", lambda: code(lab) == 200)
        held.kill()


def test_with_the_gateway_killed_nothing_passes_until_it_is_back(lab: LabUnderTest) -> None:
    assert code(lab) == 200
    before = lab.status_of(POD)["restarts"]
    for pid in lab.status_of(POD)["pids"]:
        lab.signal(pid, "STOP")
    assert ask(lab, "web.example.com", "-m", "2")[0] == 0
    for pid in lab.status_of(POD)["pids"]:
        lab.signal(pid, "KILL")
    until("the gateway was started anew", lambda: lab.status_of(POD)["restarts"] > before, 60)
    ready(lab, GATEWAY)
    until("requests pass again", lambda: code(lab) == 200, 60)
