"""Which workloads a waypoint stands before when they are called by their own addresses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ambient.control.derive_direct import Directs
from ambient.control.derive_front import Fronts
from ambient.kube.networking import Gateway
from ambient.kube.objects import Records
from ambient.model.workload import GatewayAddress, NamespacedHostname
from ambient.waypoint.front import Direct, Protocol
from tests.ambient.control.test_derive_front import CLASS, WAYPOINT, view
from tests.support.builders import workload
from tests.support.waypoint_records import TARGET, derived, gateway, pod, policy, scene, service

USES = {"istio.io/use-waypoint": "waypoint"}
WEB = "spiffe://cluster.local/ns/shop/sa/web"


def labelled(raw: dict[str, Any], **labels: str) -> dict[str, Any]:
    metadata = raw["metadata"]
    return {**raw, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), **labels}}}


def waypoint(traffic: str) -> dict[str, Any]:
    return labelled(gateway(), **{"istio.io/waypoint-for": traffic})


def db(name: str = "db-1", ip: str = "10.1.9.1", **more: Any) -> dict[str, Any]:
    return labelled(pod(name, ip, app="db", **more), **USES)


def called(*more: dict[str, Any], traffic: str = "workload") -> tuple[Direct, ...]:
    return view(scene(waypoint(traffic), *more, without=("waypoint",))).direct


@pytest.mark.parametrize(
    ("traffic", "stands"), [("workload", True), ("all", True), ("service", False), ("none", False)]
)
def test_it_stands_before_pods_where_it_is_for_them(traffic: str, stands: bool) -> None:
    found = called(db(), traffic=traffic)
    assert [(one.account, one.identity, str(one.workloads[0].addresses[0])) for one in found] == (
        [("web", WEB, "10.1.9.1")] if stands else []
    )


def test_pods_that_do_not_ask_for_it_are_not_its_own() -> None:
    assert called() == ()
    assert called(labelled(db(), **{"istio.io/use-waypoint": "none"})) == ()


def test_what_is_spoken_on_a_port_is_what_its_services_say_of_it() -> None:
    http = {"name": "http", "port": 80, "targetPort": 8080}
    headless = service("db", http, {"name": "tcp-x", "port": 5432}, {"name": "any", "port": 7000}, ip="None")
    (found,) = called(db(), headless)
    assert found.workloads[0].declared == ((5432, Protocol.TCP), (8080, Protocol.HTTP))
    other = service("other", {"name": "tcp", "port": 1, "targetPort": 8080}, ip="10.96.0.9")
    other["spec"]["selector"] = {"app": "db"}
    (found,) = called(db(), headless, other)
    assert found.workloads[0].declared == ((5432, Protocol.TCP),)


def test_who_is_not_in_the_mesh_is_spoken_to_without_a_tunnel() -> None:
    (found,) = called(db(mesh=False))
    assert (found.account, found.identity) == ("web~plain", "")


def test_no_account_takes_the_name_of_another_that_is_not_in_the_mesh() -> None:
    outside = db("db-2", "10.1.9.2", mesh=False)
    inside = db()
    inside["spec"]["serviceAccountName"] = "web.plain"
    found = called(inside, outside)
    assert {one.account: one.identity for one in found} == {"web.plain": f"{WEB}.plain", "web~plain": ""}


def test_policies_of_the_gateway_and_its_class_are_in_force_and_those_of_services_are_not() -> None:
    named = (policy("own", "DENY", WAYPOINT), policy("web", "DENY", TARGET))
    (found,) = called(db(), *named, policy("all", "DENY", CLASS, namespace="istio-system"))
    assert {one.name for one in found.policies} == {"own", "all"}


def test_an_address_that_two_accounts_claim_is_nobodys() -> None:
    at = GatewayAddress(NamespacedHostname("shop", "waypoint.shop.svc.cluster.local"))
    one = replace(workload("a", "10.0.1.1"), waypoint=at)
    directs = Directs()
    directs.put(one)
    directs.put(replace(workload("b", "10.0.1.1"), waypoint=at, service_account="thief"))
    assert directs.of(at, {}) == ()
    directs.take(workload("b", "10.0.1.1").uid)
    (found,) = directs.of(at, {})
    assert directs.of(at, {})[0] is found
    assert [str(ip) for one in found.workloads for ip in one.addresses] == ["10.0.1.1"]
    directs.put(replace(one, waypoint=None))
    assert directs.of(at, {}) == ()


def test_a_pod_that_comes_or_goes_alone_is_told_at_once() -> None:
    fronts = Fronts(("cluster.local",), "istio-system")

    def told(found: Records) -> tuple[Direct, ...]:
        made = derived(found)
        fronts.update(found, made)
        record = found.find(Gateway, "shop", "waypoint")
        assert record is not None
        return fronts.view(made.waypoints["shop/waypoint"], record).direct

    one = scene(waypoint("all"), db(), without=("waypoint",))
    two = scene(waypoint("all"), db(), db("db-2", "10.1.9.2"), without=("waypoint",))
    assert [len(told(found)[0].workloads) for found in (one, two, one)] == [1, 2, 1]
