"""What is replaced while connections are opened all the time: applications, every part of the mesh, the mesh itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.lab import cluster
from tests.cluster.lab.plan import Plan
from tests.support.kube import LABEL, SYSTEM, Kube, deployment, eventually, redirection, service
from tests.support.kube_apps import LINGER, PORTS, Load, server

SPACE = "rollouts"
SOME = 200
"""Requests that have to go well before and after something happens."""


@pytest.fixture(scope="module")
def shop(kube: Kube) -> Iterator[str]:
    """Two replicas of db, and a load on either node."""
    with kube.namespace(SPACE):
        spec = server(kube, **LINGER)
        spec["terminationGracePeriodSeconds"] = 15
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        kube.apply(service(SPACE, "db", **PORTS), deployment(SPACE, "db", 2, spec, strategy=rolling))
        kube.rolled_out("deployment/db", namespace=SPACE)
        kube.ready(SPACE)
        yield SPACE


@pytest.fixture
def loads(kube: Kube, shop: str, request: pytest.FixtureRequest) -> Iterator[list[Load]]:
    nodes = [node["metadata"]["name"] for node in kube.all("nodes")]
    names = [f"load-{abs(hash(request.node.name)) % 10**6}-{node}" for node in nodes]
    made = [Load(kube, shop, name, "db", node=node) for name, node in zip(names, nodes, strict=True)]
    for load in made:
        load.more(SOME)
    yield made
    for name in names:
        kube.delete("pod", name, shop, wait=False)


def all_went_well(loads: list[Load]) -> None:
    for load in loads:
        load.more(SOME)
    failures = [line for load in loads for line in load.failures()]
    assert failures == [], f"{len(failures)} of {sum(load.total['done'] for load in loads)}: {failures[:5]}"


def test_a_deployment_is_rolled_out_and_no_request_fails(kube: Kube, shop: str, loads: list[Load]) -> None:
    before = {pod["metadata"]["uid"] for pod in kube.all("pods", shop, labels="app=db")}
    kube.run("-n", shop, "rollout", "restart", "deployment/db")
    kube.rolled_out("deployment/db", namespace=shop)
    eventually(
        lambda: not before & {pod["metadata"]["uid"] for pod in kube.all("pods", shop, labels="app=db")}, "for the old"
    )
    all_went_well(loads)


@pytest.mark.parametrize("part", ["deployment/ambient-control", "daemonset/ambient-agent", "daemonset/ztunnel"])
def test_a_part_is_rolled_out_and_no_new_connection_fails(kube: Kube, shop: str, loads: list[Load], part: str) -> None:
    app = part.partition("/")[2]
    before = {pod["metadata"]["uid"] for pod in kube.all("pods", SYSTEM, labels=f"app={app}")}
    kube.run("-n", SYSTEM, "rollout", "restart", part)
    kube.rolled_out(part)
    eventually(
        lambda: not before & {pod["metadata"]["uid"] for pod in kube.all("pods", SYSTEM, labels=f"app={app}")},
        "for the old pods to be gone",
    )
    all_went_well(loads)


def test_a_namespace_leaves_the_mesh_and_comes_back_and_no_new_connection_fails(
    kube: Kube, shop: str, loads: list[Load]
) -> None:
    def all_are(state: str) -> bool:
        return {redirection(pod) for pod in kube.all("pods", shop)} == {state}

    eventually(lambda: all_are("enabled"), "for all pods to be in")
    kube.run("label", "namespace", shop, f"{LABEL}-")
    eventually(lambda: all_are(""), "for all pods to be out")
    for load in loads:
        load.more(SOME)
    kube.run("label", "namespace", shop, f"{LABEL}=ambient")
    eventually(lambda: all_are("enabled"), "for all pods to be in again")
    all_went_well(loads)


@pytest.mark.parametrize("program", ["kubelet", "containerd"])
def test_a_nodes_own_program_is_killed_and_nobody_notices(
    kube: Kube, shop: str, loads: list[Load], lab: Plan, program: str
) -> None:
    cluster.restart(lab, 2, program)
    cluster.wait_for_node(lab, 2)
    all_went_well(loads)
