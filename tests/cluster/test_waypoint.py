"""A waypoint on a cluster, from its Gateway to its end: made, kept, replaced under load, and gone with its Gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ambient.waypoint.deploy import GATEWAY_NAME
from tests.support.kube import Kube, account, address, eventually, pod, pod_spec
from tests.support.kube_apps import Load, client
from tests.support.kube_waypoints import (
    ECHO,
    USE,
    allow,
    answers,
    conditions,
    gateway,
    http_service,
    programmed,
    route,
    status,
)

SPACE = "waypoints"
WEB = "http://web/id"
POST = ("-X", "POST", "-d", "x")
SOME = 200
"""Requests that have to go well before and after something happens."""
MADE = ("serviceaccount/waypoint", "service/waypoint", "deployment.apps/waypoint")


def echo(kube: Kube, node: str) -> dict[str, object]:
    probe = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
    return pod_spec(("python3", "-c", ECHO), kube.image, node=node, account="web", **probe)


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[str]:
    """web and its other version on one node, who asks on the other; the Gateway is there before anybody asks."""
    nodes = [node["metadata"]["name"] for node in kube.all("nodes")]
    with kube.namespace(SPACE):
        kube.apply(
            *(account(SPACE, name) for name in ("web", "client", "guest")),
            http_service(SPACE, "web", "web"),
            http_service(SPACE, "other", "other"),
            pod(SPACE, "web", echo(kube, nodes[0])),
            pod(SPACE, "other", echo(kube, nodes[0])),
            pod(SPACE, "client", client(node=nodes[-1], account="client")),
            pod(SPACE, "guest", client(node=nodes[-1], account="guest")),
            gateway(SPACE),
        )
        kube.ready(SPACE)
        kube.run("label", "namespace", SPACE, f"{USE}=waypoint")
        eventually(lambda: programmed(kube, SPACE), "for the Gateway to be programmed")
        yield SPACE


def waypoints(kube: Kube) -> list[dict[str, object]]:
    found = kube.all("pods", SPACE, labels=f"{GATEWAY_NAME}=waypoint")
    return [one for one in found if "deletionTimestamp" not in one["metadata"]]


def passes_the_waypoint(kube: Kube) -> bool:
    said = kube.fetch(SPACE, "client", WEB)
    return said is not None and json.loads(said)["peer"] in {address(one) for one in waypoints(kube)}


def test_a_gateway_becomes_a_waypoint_that_requests_pass(kube: Kube, shop: str) -> None:
    eventually(lambda: passes_the_waypoint(kube), "for a request through the waypoint")
    found = kube.get("gateway", "waypoint", SPACE)
    assert found["status"]["addresses"] == [{"type": "Hostname", "value": f"waypoint.{SPACE}.svc.cluster.local"}]
    said = {name: word for name, (word, _) in conditions(kube, SPACE).items()}
    assert {said[name] for name in ("Accepted", "Programmed", "ambient.mesh/Configured")} == {"True"}
    accepted = kube.get("gatewayclass", "istio-waypoint")["status"]["conditions"]
    assert [one["status"] for one in accepted if one["type"] == "Accepted"] == ["True"]


def test_a_policy_lets_a_client_read_and_nothing_else(kube: Kube, shop: str) -> None:
    answers(kube, SPACE, "client", WEB, 200, *POST)
    assert status(kube, SPACE, "guest", WEB) == 200
    kube.apply(allow(SPACE, "web", "client", "GET"))
    answers(kube, SPACE, "client", WEB, 403, *POST)
    assert status(kube, SPACE, "client", WEB) == 200
    assert status(kube, SPACE, "guest", WEB) == 403


def test_a_route_goes_by_a_header(kube: Kube, shop: str) -> None:
    kube.apply(route(SPACE, "web", ("x-team", "red"), "other"))

    def served_by(*argv: str) -> str:
        said = kube.exec(SPACE, "client", "curl", "-sS", "-m", "8", *argv, WEB).stdout
        return str(json.loads(said)["pod"]) if said.startswith("{") else ""

    eventually(lambda: served_by("-H", "x-team: red") == "other", "for the route")
    assert served_by() == served_by("-H", "x-team: blue") == "web"
    kube.delete("httproute", "web", SPACE)
    eventually(lambda: served_by("-H", "x-team: red") == "web", "for the route to be gone")


def test_a_rollout_of_the_waypoint_loses_no_request(kube: Kube, shop: str) -> None:
    kube.delete("authorizationpolicy", "only", SPACE)
    answers(kube, SPACE, "guest", WEB, 200)
    load = Load(kube, SPACE, "load", "web", node=kube.get("pod", "client", SPACE)["spec"]["nodeName"])
    load.more(SOME)
    before = {one["metadata"]["uid"] for one in waypoints(kube)}  # type: ignore[index]
    kube.run("-n", SPACE, "rollout", "restart", "deployment/waypoint")
    kube.rolled_out("deployment/waypoint", namespace=SPACE)

    def replaced() -> bool:
        found = kube.all("pods", SPACE, labels=f"{GATEWAY_NAME}=waypoint")
        return not before & {one["metadata"]["uid"] for one in found}

    eventually(replaced, "for the waypoint before to be gone")
    load.more(SOME)
    failures = load.failures()
    assert not failures, f"{len(failures)}: {failures[:5]}"
    kube.delete("pod", "load", SPACE)


def test_without_its_proxy_everything_is_refused_and_nothing_passes_beside_it(kube: Kube, shop: str) -> None:
    # As an autoscaler would: how many there are is not the control plane's to say.
    kube.run("-n", SPACE, "scale", "deployment/waypoint", "--replicas=0")
    kube.run("-n", SPACE, "delete", "pods", "-l", f"{GATEWAY_NAME}=waypoint", "--force", "--grace-period=0")
    answers(kube, SPACE, "client", WEB, 0)
    eventually(lambda: not programmed(kube, SPACE), "for the Gateway to say so")
    assert status(kube, SPACE, "client", WEB) == 0
    kube.run("-n", SPACE, "scale", "deployment/waypoint", "--replicas=1")
    answers(kube, SPACE, "client", WEB, 200)
    eventually(lambda: programmed(kube, SPACE), "for the Gateway to be programmed again")


def test_what_is_deleted_or_edited_by_hand_comes_back(kube: Kube, shop: str) -> None:
    before = kube.get("deployment", "waypoint", SPACE)["metadata"]["uid"]
    kube.delete("deployment", "waypoint", SPACE, wait=False)

    def again() -> bool:
        found = kube.all("deployments", SPACE, fields="metadata.name=waypoint")
        return [one["metadata"]["uid"] for one in found] not in ([], [before])

    eventually(again, "for another Deployment")
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "istio-proxy", "image": "localhost/none:1"}]}}}}
    kube.run("-n", SPACE, "patch", "deployment", "waypoint", "-p", json.dumps(patch))

    def image() -> str:
        (container,) = kube.get("deployment", "waypoint", SPACE)["spec"]["template"]["spec"]["containers"]
        return str(container["image"])

    eventually(lambda: image() == kube.image, "for our image")
    answers(kube, SPACE, "client", WEB, 200)
    eventually(lambda: passes_the_waypoint(kube), "for a request through the waypoint")


def test_what_cannot_be_made_is_told_on_its_gateway(kube: Kube, shop: str) -> None:
    kube.apply(gateway(SPACE, "web"))
    eventually(lambda: "was not made for this Gateway" in conditions(kube, SPACE, "web").get("Programmed", ("", ""))[1],
               "for the condition")  # fmt: skip
    assert kube.get("service", "web", SPACE)["spec"]["selector"] == {"app": "web"}
    kube.delete("gateway", "web", SPACE)


def test_with_its_gateway_everything_goes_and_connections_go_directly(kube: Kube, shop: str) -> None:
    kube.run("annotate", "namespace", SPACE, "ambient.mesh/without-waypoint=deny")
    kube.delete("gateway", "waypoint", SPACE)

    def left() -> set[str]:
        listed = kube.run("-n", SPACE, "get", "serviceaccounts,services,deployments", "-o", "name").split()
        return set(listed) & set(MADE)

    eventually(lambda: not left() and not waypoints(kube), "for everything of it to be gone, or going")

    # Closed, as their owner has chosen; without a choice they are open, as everywhere.
    answers(kube, SPACE, "client", WEB, 0)
    kube.run("annotate", "namespace", SPACE, "ambient.mesh/without-waypoint-")

    def directly() -> bool:
        said = kube.fetch(SPACE, "client", WEB)
        return said is not None and json.loads(said)["peer"] == address(kube.get("pod", "client", SPACE))

    eventually(directly, "for a request to go directly")
