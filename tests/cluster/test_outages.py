"""What goes on while the control plane is away, and after a node was."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster.lab import cluster
from tests.cluster.lab.plan import Plan
from tests.support.bridge import Bridge
from tests.support.kube import SYSTEM, Kube, account, address, eventually, is_ready, pod, policy, redirection, service
from tests.support.kube_apps import PORTS, Load, client, server

SPACE = "outages"
OUTAGE_S = float(os.environ.get("AMBIENT_TEST_OUTAGE", "40"))
"""How long there is no control plane, in seconds: longer than a replaced ztunnel may drain. A campaign takes 600."""


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[str]:
    """In STRICT: db and keeper on n1, web on n2."""
    with kube.namespace(SPACE):
        kube.apply(
            policy("PeerAuthentication", SPACE, "strict", {"mtls": {"mode": "STRICT"}}),
            *(account(SPACE, name) for name in ("db", "web", "stranger")),
            service(SPACE, "db", **PORTS),
            pod(SPACE, "db", server(kube, node="n1", account="db")),
            pod(SPACE, "web", client(node="n2", account="web")),
        )
        kube.ready(SPACE)
        yield SPACE


@pytest.fixture
def no_control(kube: Kube) -> Iterator[None]:
    """There is no control plane until the end of the test."""
    replicas = kube.get("deployment", "ambient-control")["spec"]["replicas"]
    kube.run("-n", SYSTEM, "scale", "deployment/ambient-control", "--replicas=0")
    eventually(lambda: not kube.all("pods", SYSTEM, labels="app=ambient-control"), "for the control plane to be gone")
    yield
    kube.run("-n", SYSTEM, "scale", "deployment/ambient-control", f"--replicas={replicas}")
    kube.rolled_out("deployment/ambient-control")


@pytest.fixture
def load(kube: Kube, shop: str) -> Iterator[Load]:
    made = Load(kube, shop, "load", "db", node="n2")
    yield made
    kube.delete("pod", "load", shop, wait=False)


def test_without_a_control_plane_traffic_and_known_identities_go_on(
    kube: Kube, shop: str, load: Load, no_control: None
) -> None:
    load.more(100)
    # A new pod of an identity that its node holds already.
    kube.apply(pod(shop, "web-again", client(node="n2", account="web")))
    eventually(lambda: is_ready(kube.get("pod", "web-again", shop)), "for the new pod")
    eventually(lambda: kube.fetch(shop, "web-again", "http://db/id"), "for its first answer")
    # A ztunnel that is replaced takes what is known over.
    kube.run("-n", SYSTEM, "rollout", "restart", "daemonset/ztunnel")
    kube.rolled_out("daemonset/ztunnel")
    load.go_on(OUTAGE_S)
    assert load.failures() == []
    assert kube.fetch(shop, "web", "http://db/id")


def test_a_pod_that_cannot_be_served_says_so(kube: Kube, shop: str, no_control: None) -> None:
    kube.apply(pod(shop, "stranger", client(node="n2", account="stranger")))

    def told() -> bool:
        events = kube.all("events", shop, fields="involvedObject.name=stranger")
        return any(one["type"] == "Warning" for one in events)

    eventually(told, "for an event that says why")
    found = kube.get("pod", "stranger", shop)
    assert not is_ready(found) or redirection(found) != "enabled"


def test_a_stranger_is_served_once_the_control_plane_is_back(kube: Kube, shop: str) -> None:
    kube.ready(shop, "app=stranger")
    eventually(lambda: kube.fetch(shop, "stranger", "http://db/id"), "for its first answer")


def test_a_node_that_crashes_comes_back_with_its_pods_captured(kube: Kube, shop: str, lab: Plan) -> None:
    server_address = address(kube.get("pod", "db", shop))
    before = kube.get("pod", "web", shop)["status"]["containerStatuses"][0]["containerID"]
    with Bridge(lab.bridge, lab.pods, lab.api_address) as wire:
        cluster.crash(lab, 2)
        cluster.back(lab, 2)
        cluster.wait_for_node(lab, 2)

        def back() -> bool:
            found = kube.get("pod", "web", shop)
            return is_ready(found) and found["status"]["containerStatuses"][0]["containerID"] != before

        eventually(back, "for the pod to run again", 180)
        eventually(lambda: kube.fetch(shop, "web", "http://db/id"), "for an answer")
    web = address(kube.get("pod", "web", shop))
    assert wire.tunnelled([web, server_address])
    assert wire.plain([web, server_address]) == []
    kube.rolled_out("daemonset/ztunnel", "daemonset/ambient-agent")
