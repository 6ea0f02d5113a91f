"""Where connections go, on real traffic: names, health, nearness, nodes' own networks, and a pod's calls of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ambient.lab.sync import wait_acknowledged
from tests.support.fickle import PORT, fickle
from tests.support.journey import BOTH, JOIN, Journey, account
from tests.support.lab import PATIENCE_S, SLEEP, lab_under_test, namespace_yaml, object_yaml, pod_yaml, until

CLIENT, LONELY = "shop/client", "shop/lonely"


def service(name: str, app: str, port: int = 80, **spec: Any) -> str:
    ports = [{"name": "http", "port": port, "targetPort": PORT}]
    return object_yaml("v1", "Service", name, "shop", spec={**BOTH, "selector": {"app": app}, "ports": ports, **spec})


OBJECTS = (
    namespace_yaml("shop")
    + account("client")
    + pod_yaml(CLIENT, SLEEP, node="n1", account="client")
    + fickle("shop/near", "n1", "pair")
    + fickle("shop/far", "n2", "pair")
    + fickle("shop/waiting", "n2", "waiting", sick=True)
    + fickle(LONELY, "n2", "lonely")
    + fickle("shop/onnode", "n2", "onnode", port=8099, host=True)
    + service("pair", "pair")
    + service("close", "pair", trafficDistribution="PreferSameNode")
    + service("local", "pair", internalTrafficPolicy="Local")
    + service("headless", "pair", clusterIP="None")
    + service("waiting", "waiting")
    + service("anyway", "waiting", publishNotReadyAddresses=True)
    + service("lonely", "lonely", port=8080)
    + service("six", "lonely", ipFamilies=["IPv6"], ipFamilyPolicy="SingleStack")
    + service("four", "lonely", ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    + service("nobody", "nobody")
    + object_yaml(
        "v1",
        "Service",
        "onnode",
        "shop",
        spec={**BOTH, "selector": {"app": "onnode"}, "ports": [{"name": "http", "port": 80, "targetPort": 8099}]},
    )
    + object_yaml(
        "v1",
        "Service",
        "alias",
        "shop",
        spec={"type": "ExternalName", "externalName": "lonely.shop.svc.cluster.local"},
    )
)


class Routes(Journey):
    """The journeys' verbs on OBJECTS."""

    def ask(self, client: str, host: str, port: int = 80, path: str = "/id") -> dict[str, str]:
        answer: dict[str, str] = self.identify(client, f"http://{host}:{port}{path}")
        return answer

    def who(self, host: str, port: int = 80, times: int = 12) -> set[str]:
        """Names of those who answer the client."""
        return {self.ask(CLIENT, host, port).get("name", "") for _ in range(times)}

    def tell(self, pod: str, word: str) -> None:
        """Make a pod sick or well, and wait until the mesh knows."""
        self.stage.exec(pod, "curl", "-s", f"http://127.0.0.1:{PORT}/{word}")
        ready = word == "well"
        until(f"{pod} is {word}", lambda: self.lab.status_of(pod)["ready"] is ready)
        wait_acknowledged(self.lab.lab, PATIENCE_S)

    def explain(self, *args: str) -> dict[str, Any]:
        done = self.stage.command("explain", "--name", self.lab.name, *args, "-o", "json")
        found: dict[str, Any] = json.loads(done.out)
        return found

    def refused(self, host: str, port: int, reason: str, node: str = "n1") -> None:
        """The client gets no connection, at once, and the log says why."""
        asked = self.stage.exec(CLIENT, "curl", "-s", "--max-time", "20", f"http://{host}:{port}/id", timeout_s=60)
        assert asked.code in (7, 52, 56), f"curl exit {asked.code}: {asked.out}"

        def logged() -> bool:
            lines = self.stage.logs(node, "ztunnel").splitlines()
            return any(f'error="{reason}' in line and f":{port}" in line for line in lines)

        until(f"{reason} for port {port} in the log", logged)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Routes]:
    with lab_under_test("routes") as lab:
        lab.up(OBJECTS, mesh=True)
        lab.wait_ready(CLIENT, "shop/near", "shop/far", LONELY, "shop/onnode")
        lab.label("shop", JOIN)
        yield Routes(lab)


def test_a_service_is_shared_by_all_who_are_ready(mesh: Routes) -> None:
    assert mesh.who("pair", times=24) == {"near", "far"}


def test_a_headless_name_is_the_pods_and_reaches_them_through_the_mesh(mesh: Routes) -> None:
    found = mesh.stage.exec(CLIENT, "getent", "ahostsv4", "headless.shop.svc.cluster.local").out
    assert {mesh.host("shop/near", 4), mesh.host("shop/far", 4)} == {line.split()[0] for line in found.splitlines()}
    assert mesh.who("headless", PORT, times=24) <= {"near", "far"}
    assert mesh.explain(CLIENT, f"headless.shop:{PORT}")["route"] == "mutual TLS through the mesh"


def test_a_headless_name_leaves_out_who_is_not_ready(mesh: Routes) -> None:
    mesh.tell("shop/far", "sick")
    try:
        name = "headless.shop.svc.cluster.local"

        def pods() -> set[str]:
            found = mesh.stage.exec(CLIENT, "getent", "ahostsv4", name).out
            return {line.split()[0] for line in found.splitlines()}

        until("only near", lambda: pods() == {mesh.host("shop/near", 4)})
    finally:
        mesh.tell("shop/far", "well")


def test_an_external_name_leads_where_it_says(mesh: Routes) -> None:
    answer = mesh.ask(CLIENT, "alias.shop", 8080)
    assert (answer["name"], answer["peer"]) in {
        ("lonely", mesh.host(CLIENT, 4)),
        ("lonely", mesh.host(CLIENT, 6)),
    }


def test_whoever_is_no_longer_ready_gets_nothing_new(mesh: Routes) -> None:
    mesh.tell("shop/near", "sick")
    try:
        until("far alone", lambda: mesh.who("pair", times=8) == {"far"})
        (passed,) = mesh.explain(CLIENT, "pair:80")["notChosen"]
        assert (passed["workload"], passed["why"]) == ("shop/near", "it is not ready, or leaving")
    finally:
        mesh.tell("shop/near", "well")
    until("both again", lambda: mesh.who("pair", times=16) == {"near", "far"})


def test_the_nearest_is_preferred_and_the_next_takes_over(mesh: Routes) -> None:
    assert mesh.who("close") == {"near"}
    assert [one["why"] for one in mesh.explain(CLIENT, "close:80")["notChosen"]] == ["others are nearer (FAILOVER)"]
    mesh.tell("shop/near", "sick")
    try:
        until("far takes over", lambda: mesh.who("close", times=4) == {"far"})
    finally:
        mesh.tell("shop/near", "well")
    until("near again", lambda: mesh.who("close", times=4) == {"near"})


def test_a_service_for_its_own_node_is_never_served_by_another(mesh: Routes) -> None:
    assert mesh.who("local") == {"near"}
    mesh.tell("shop/near", "sick")
    try:
        mesh.refused("local", 80, "no-healthy-upstream")
    finally:
        mesh.tell("shop/near", "well")
    until("near again", lambda: mesh.who("local", times=4) == {"near"})


def test_who_is_not_ready_is_reached_where_the_service_says_so(mesh: Routes) -> None:
    mesh.refused("waiting", 80, "no-healthy-upstream")
    assert mesh.who("anyway", times=4) == {"waiting"}


def test_a_service_with_nobody_behind_it_refuses_at_once_with_the_reason(mesh: Routes) -> None:
    mesh.refused("nobody", 80, "no-healthy-upstream")
    assert "it has none at all" in mesh.explain(CLIENT, "nobody:80")["route"]


@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_on_its_nodes_network_is_reached_in_clear(mesh: Routes, version: int) -> None:
    assert mesh.who("onnode", times=2) == {"onnode"}
    address = mesh.host("shop/onnode", version)
    host = f"[{address}]" if version == 6 else address
    assert mesh.ask(CLIENT, host, 8099)["name"] == "onnode"


@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_on_its_nodes_network_reaches_the_mesh(mesh: Routes, version: int) -> None:
    address = mesh.host(LONELY, version)
    host = f"[{address}]" if version == 6 else address
    assert mesh.ask("shop/onnode", host, PORT)["name"] == "lonely"


@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_that_calls_its_own_service_gets_itself(mesh: Routes, version: int) -> None:
    own = mesh.host(LONELY, version)
    answer = mesh.ask(LONELY, {4: "four", 6: "six"}[version])
    assert answer == {"name": "lonely", "peer": own, "own": own}
    assert mesh.ask(LONELY, "lonely", 8080)["name"] == "lonely"


@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_that_calls_its_own_address_needs_nobody(mesh: Routes, version: int) -> None:
    own = mesh.host(LONELY, version)
    host = f"[{own}]" if version == 6 else own
    assert mesh.ask(LONELY, host, PORT) == {"name": "lonely", "peer": own, "own": own}
    assert mesh.ask(LONELY, "127.0.0.1", PORT)["name"] == "lonely"


@pytest.mark.parametrize("version", [4, 6])
def test_a_service_of_one_family_is_reached_in_it(mesh: Routes, version: int) -> None:
    answer = mesh.ask(CLIENT, {4: "four", 6: "six"}[version])
    assert (answer["name"], answer["peer"], answer["own"]) == (
        *("lonely", mesh.host(CLIENT, version), mesh.host(LONELY, version)),
    )
