"""Nodes with a real kubelet and container runtime: who is held, who is captured again, whose probes pass."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.cluster.lab import node
from tests.cluster.lab.plan import Plan
from tests.support.kube import (
    SYSTEM,
    Kube,
    account,
    address,
    eventually,
    is_ready,
    pod,
    pod_spec,
    policy,
    redirection,
    service,
)
from tests.support.kube_apps import PORTS, TOOLS, client, server

SPACE = "nodes"
CONFIGURATION = "10-lab.conflist"


@pytest.fixture(scope="module")
def strict(kube: Kube) -> Iterator[str]:
    """In STRICT: db on n2, web on n1."""
    with kube.namespace(SPACE):
        kube.apply(
            policy("PeerAuthentication", SPACE, "strict", {"mtls": {"mode": "STRICT"}}),
            *(account(SPACE, name) for name in ("db", "web")),
            service(SPACE, "db", **PORTS),
            pod(SPACE, "db", server(kube, node="n2", account="db")),
            pod(SPACE, "web", client(node="n1", account="web")),
        )
        kube.ready(SPACE)
        yield SPACE


def inside(lab: Plan, number: int, *argv: str, check: bool = True) -> str:
    """What a command inside a node says."""
    done = subprocess.run(node.enter(lab, number, argv), capture_output=True, text=True, check=False, timeout=60)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def plugins(lab: Plan, number: int) -> list[str]:
    path = lab.node_folder(number) / "cni-net" / CONFIGURATION
    with suppress(ValueError):
        return [plugin["type"] for plugin in json.loads(path.read_text())["plugins"]]
    return []


def test_probes_of_the_real_kubelet_pass_in_strict_and_nobody_elses_do(kube: Kube, strict: str, lab: Plan) -> None:
    db = address(kube.get("pod", "db", strict))
    spec = {**pod_spec(("sleep", "infinity"), TOOLS, node="n2"), "hostNetwork": True}
    kube.apply(pod(strict, "on-the-node", spec))
    eventually(lambda: is_ready(kube.get("pod", "on-the-node", strict)), "for a pod on the node's network")
    assert is_ready(kube.get("pod", "db", strict))
    assert kube.fetch(strict, "on-the-node", f"http://{db}:8080/id") is None
    assert redirection(kube.get("pod", "on-the-node", strict)) == ""
    # Sabotage: without STRICT the same request is answered.
    kube.delete("peerauthentication", "strict", strict)
    eventually(lambda: kube.fetch(strict, "on-the-node", f"http://{db}:8080/id"), "for an answer without STRICT")
    kube.apply(policy("PeerAuthentication", strict, "strict", {"mtls": {"mode": "STRICT"}}))
    eventually(lambda: kube.fetch(strict, "on-the-node", f"http://{db}:8080/id") is None, "for STRICT again")


def test_a_pod_whose_sandbox_dies_is_captured_in_the_next_one(kube: Kube, strict: str, lab: Plan) -> None:
    before = kube.get("pod", "web", strict)
    uid = before["metadata"]["uid"]
    script = f"for p in $(pgrep -x pause); do grep -q {uid} /proc/$p/cgroup && kill -9 $p; done; exit 0"
    inside(lab, 1, "sh", "-c", script)

    def again() -> bool:
        found = kube.get("pod", "web", strict)
        return is_ready(found) and found["status"]["containerStatuses"][0]["restartCount"] > 0

    eventually(again, "for the next sandbox")
    assert kube.fetch(strict, "web", "http://db/id")
    eventually(lambda: redirection(kube.get("pod", "web", strict)) == "enabled", "for the annotation")


def test_a_configuration_that_is_overwritten_gets_the_plugin_again(kube: Kube, strict: str, lab: Plan) -> None:
    folder = lab.node_folder(1) / "cni-net"
    original = (folder / f"{CONFIGURATION}.before-ambient").read_bytes()
    assert plugins(lab, 1)[-1] == "ambient-cni"
    (folder / CONFIGURATION).write_bytes(original)
    eventually(lambda: plugins(lab, 1)[-1:] == ["ambient-cni"], "after a write in place")
    (folder / "new").write_bytes(original)
    (folder / "new").replace(folder / CONFIGURATION)
    eventually(lambda: plugins(lab, 1)[-1:] == ["ambient-cni"], "after a rename")


@pytest.fixture
def no_agents(kube: Kube) -> Iterator[None]:
    """The agents are away until the end of the test; their DaemonSet is there."""
    nowhere = [{"op": "add", "path": "/spec/template/spec/nodeSelector/nowhere", "value": "x"}]
    back = [{"op": "remove", "path": "/spec/template/spec/nodeSelector/nowhere"}]
    patch = ("-n", SYSTEM, "patch", "daemonset", "ambient-agent", "--type=json", "-p")
    kube.run(*patch, json.dumps(nowhere))
    eventually(lambda: not kube.all("pods", SYSTEM, labels="app=ambient-agent"), "for the agents to be gone")
    try:
        yield
    finally:
        kube.run(*patch, json.dumps(back))
        kube.rolled_out("daemonset/ambient-agent")


def test_without_an_agent_new_pods_are_held_with_the_reason_and_others_go_on(
    kube: Kube, strict: str, lab: Plan, no_agents: None
) -> None:
    assert plugins(lab, 1)[-1] == "ambient-cni"
    kube.apply(pod(strict, "late", client(node="n1", account="web")))

    def told() -> bool:
        events = kube.all("events", strict, fields="involvedObject.name=late")
        return any("ambient node agent does not answer" in one["message"] for one in events)

    eventually(told, "for the reason")
    assert not is_ready(kube.get("pod", "late", strict))
    assert kube.fetch(strict, "web", "http://db/id")
    # What the mesh and the cluster need themselves starts all the same.
    kube.apply(pod("kube-system", "system", client(node="n1")))
    eventually(lambda: is_ready(kube.get("pod", "system", "kube-system")), "for a pod of the system")
    kube.delete("pod", "system", "kube-system", wait=False)


def test_the_held_pod_starts_captured_when_the_agent_is_back(kube: Kube, strict: str) -> None:
    eventually(lambda: is_ready(kube.get("pod", "late", strict)), "for the pod that was held", 120)
    assert kube.fetch(strict, "late", "http://db/id")
    eventually(lambda: redirection(kube.get("pod", "late", strict)) == "enabled", "for the annotation")


def test_a_namespace_that_leaves_and_joins_again_keeps_talking(kube: Kube, strict: str) -> None:
    kube.delete("peerauthentication", "strict", strict)
    db = address(kube.get("pod", "db", strict))
    eventually(lambda: kube.fetch(strict, "on-the-node", f"http://{db}:8080/id"), "for an answer without STRICT")
    for mode, word in (("none", ""), ("ambient", "enabled")):
        kube.run("label", "namespace", strict, "--overwrite", f"istio.io/dataplane-mode={mode}")
        eventually(
            lambda word=word: {redirection(one) for one in kube.all("pods", strict, labels="app=web")} == {word},
            f"for pods {word or 'outside'}",
        )
        assert kube.fetch(strict, "web", "http://db/id")
    kube.apply(policy("PeerAuthentication", strict, "strict", {"mtls": {"mode": "STRICT"}}))
