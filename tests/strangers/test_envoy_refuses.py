"""What Envoy refuses closes the service that it is for, and nothing else; what it would have kept does not live on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from ambient.ca.token import Caller
from ambient.control.waypoints import Waypoints
from ambient.kube.objects import HTTPRoute, Records
from ambient.kube.routing import BackendRef, ParentRef, PathMatch, RouteMatch, RouteRule
from ambient.xds.server import DeltaStream
from bench.fed_envoy import FedEnvoy
from tests.support.envoy_fed import fed_envoy
from tests.support.waypoint_records import TARGET, derived, policy, scene, service

OWN = Caller("n1", "shop", "waypoint", "u")
OTHER = service("other", {"name": "http", "port": 80}, ip="10.96.0.2")
WEB, THE_OTHER = "service|80|web.shop.svc.cluster.local", "service|80|other.shop.svc.cluster.local"


class Mesh:
    """A control plane's waypoint, whose proxy the test's Envoy is."""

    def __init__(self) -> None:
        self._waypoints = Waypoints(("cluster.local",), "istio-system", "cluster.local")
        self.tell(scene(OTHER))

    def tell(self, found: Records) -> None:
        self._waypoints.update(found, derived(found))

    def open_stream(self) -> DeltaStream:
        return self._waypoints.open(OWN, "waypoint")

    def heard(self, stream: DeltaStream) -> bool:
        return self._waypoints.heard(stream)

    def close(self, stream: DeltaStream) -> bool:
        return self._waypoints.close(stream)

    @property
    def said(self) -> tuple[str, str]:
        (found,) = (one for one in self._waypoints.conditions("Gateway/shop/waypoint") if "Configured" in one.type)
        return found.status, found.message

    @property
    def closed(self) -> list[str]:
        found: list[str] = self._waypoints.summary["shop/waypoint"]["closed"]
        return found


def by_expression(expression: str) -> HTTPRoute:
    """A route that no parser would have taken, were the expression none."""
    match = RouteMatch(PathMatch("RegularExpression", expression))
    rule = RouteRule(matches=(match,), backends=(BackendRef("other", 80),))
    return HTTPRoute(namespace="shop", name="odd", parents=(ParentRef("", "Service", "web", port=80),), rules=(rule,))


def with_route(found: Records, route: HTTPRoute) -> Records:
    return replace(found, by_key={**found.by_key, route.key: route})


async def answers(envoy: FedEnvoy) -> dict[str, Any]:
    """What each table of routes says of its first route, as Envoy has it in force."""
    found = await envoy.dump("dynamic_route_configs")
    tables = {one["route_config"]["name"]: one["route_config"] for one in found}
    return {name: table["virtual_hosts"][0]["routes"][0] for name, table in tables.items()}


def test_a_refused_table_of_routes_closes_its_port_at_once_and_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        mesh = Mesh()
        async with fed_envoy(mesh, tmp_path) as envoy:
            assert await envoy.settled() == {}
            before = await answers(envoy)
            assert before[WEB]["route"]["cluster"] == "inbound-vip|80|http|web.shop.svc.cluster.local"
            deny = policy("deny", "DENY", TARGET, rules=[{}])
            mesh.tell(with_route(scene(OTHER, deny), by_expression("(")))
            await envoy.settled()
            now = await answers(envoy)
            assert now[WEB]["direct_response"]["status"] == 503
            assert now[THE_OTHER] == before[THE_OTHER]
            assert mesh.closed == [WEB]
            status, why = mesh.said
            assert status == "False"
            assert WEB in why
            assert "missing )" in why
            mesh.tell(with_route(scene(OTHER, deny), by_expression("/good")))
            assert await envoy.settled() == {}
            assert (await answers(envoy))[WEB]["match"]["safe_regex"]["regex"] == "/good"
            assert (mesh.closed, mesh.said[0]) == ([], "True")

    asyncio.run(scenario())
