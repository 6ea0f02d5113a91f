"""Two replicas of the control plane: both serve, one writes, what it writes counts the clients of both, and when it is
killed the other one writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_trust import certificate, token, ztunnel_on
from tests.support.kube import SYSTEM, Kube, account, eventually, pod, policy
from tests.support.kube_apps import client

SPACE = "replicas"
APP = "ambient-control"
_READ = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode())"


def replicas(kube: Kube) -> list[str]:
    kube.rolled_out(f"deployment/{APP}")
    return sorted(
        one["metadata"]["name"]
        for one in kube.all("pods", SYSTEM, labels=f"app={APP}")
        if "deletionTimestamp" not in one["metadata"]
    )


def page(kube: Kube, replica: str, path: str) -> str:
    return kube.exec(SYSTEM, replica, "python3", "-c", _READ, f"http://127.0.0.1:15014{path}").stdout


def nodes_of(kube: Kube, replica: str) -> set[str]:
    """Whose clients it has."""
    said = page(kube, replica, "/debug/acceptance")
    return set(json.loads(said)["nodes"]) if said.startswith("{") else set()


def leader(kube: Kube) -> str:
    """The replica that writes, by its lease."""
    holder: str = kube.get("lease", APP)["spec"].get("holderIdentity") or ""
    return holder.partition("_")[0]


def leading(kube: Kube, replica: str) -> bool:
    return "ambient_control_leading 1.0" in page(kube, replica, "/metrics")


def enforced(kube: Kube, name: str) -> str:
    """What a policy says of the nodes."""
    conditions = kube.get("authorizationpolicy", name, SPACE).get("status", {}).get("conditions", [])
    return next((one["message"] for one in conditions if "nodes" in one["message"]), "")


@pytest.fixture(scope="module")
def nodes(kube: Kube) -> Iterator[list[str]]:
    """The nodes, each with a pod `web-<node>`."""
    names = sorted(one["metadata"]["name"] for one in kube.all("nodes"))
    with kube.namespace(SPACE):
        kube.apply(*(account(SPACE, f"web-{node}") for node in names))
        kube.apply(*(pod(SPACE, f"web-{node}", client(node=node, account=f"web-{node}")) for node in names))
        kube.ready(SPACE)
        yield names


def select(kube: Kube, turn: str | None) -> None:
    """Whom the control plane's Service leads to: the replica with this label, all without one."""
    kube.run("-n", SYSTEM, "patch", "service", APP, "-p", json.dumps({"spec": {"selector": {"turn": turn}}}))


@pytest.fixture
def apart(kube: Kube, nodes: list[str]) -> Iterator[dict[str, str]]:
    """Replica -> the one node that is its client."""
    found = dict(zip(replicas(kube), nodes, strict=True))
    try:
        for replica, node in found.items():
            kube.run("-n", SYSTEM, "label", "pod", replica, f"turn={node}", "--overwrite")
            select(kube, node)
            _start_again(kube, node)
            eventually(lambda replica=replica, node=node: node in nodes_of(kube, replica), f"for {node} at {replica}")
        eventually(
            lambda: all(nodes_of(kube, replica) == {node} for replica, node in found.items()), "for one node at each"
        )
        yield found
    finally:
        select(kube, None)


def _start_again(kube: Kube, node: str) -> None:
    """The clients of a node, ztunnel and agent, when it is known where they are to connect."""

    def led() -> bool:
        slices = kube.all("endpointslices", SYSTEM, labels=f"kubernetes.io/service-name={APP}")
        return sum(len(one["endpoints"] or ()) for one in slices) == 1

    eventually(led, "for the Service's endpoints")
    for app in ("ztunnel", "ambient-agent"):
        kube.run("-n", SYSTEM, "delete", "pod", "-l", f"app={app}", "--field-selector", f"spec.nodeName={node}")
    kube.rolled_out("daemonset/ztunnel", "daemonset/ambient-agent")


def deny(name: str) -> dict[str, Any]:
    source = {"source": {"principals": ["cluster.local/ns/nowhere/sa/nobody"]}}
    return policy("AuthorizationPolicy", SPACE, name, {"action": "DENY", "rules": [{"from": [source]}]})


def test_both_serve_one_writes_and_it_counts_the_clients_of_both(
    kube: Kube, nodes: list[str], apart: dict[str, str], tmp_path: Path
) -> None:
    writer = leader(kube)
    assert {replica: leading(kube, replica) for replica in apart} == {one: one == writer for one in apart}
    for replica, node in apart.items():
        bearer = token(kube, SYSTEM, "ztunnel", ztunnel_on(kube, node))
        given = certificate(kube, tmp_path, bearer, f"web-{node}", namespace=SPACE, to=f"pod/{replica}")
        assert isinstance(given, list), f"{replica}: {given}"
    kube.apply(deny("counted"))
    all_of_them = f"accepted by {len(nodes)} of {len(nodes)} nodes"
    eventually(lambda: enforced(kube, "counted") == all_of_them, f"for {all_of_them!r}")


def test_when_the_one_that_writes_is_killed_the_other_one_does(kube: Kube, nodes: list[str]) -> None:
    before = replicas(kube)
    writer = leader(kube)
    assert writer in before
    kube.run("-n", SYSTEM, "delete", "pod", writer, "--grace-period=0", "--force")
    kube.apply(deny("later"))
    eventually(lambda: leader(kube) not in ("", writer), "for another one with the lease")
    all_of_them = f"accepted by {len(nodes)} of {len(nodes)} nodes"
    eventually(lambda: enforced(kube, "later") == all_of_them, f"for {all_of_them!r}")
    assert len(replicas(kube)) == len(before)
