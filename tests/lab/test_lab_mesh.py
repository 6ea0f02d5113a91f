"""The lab with the mesh in it: what starts, in which order, what comes back by itself, and that nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ambient.lab.names import BPFFS
from ambient.lab.teardown import remains
from tests.support.lab import (
    SLEEP,
    LabUnderTest,
    lab_under_test,
    namespace_yaml,
    object_yaml,
    pod_yaml,
    until,
)

_MESH = {"istio.io/dataplane-mode": "ambient"}
_WEB = ["python3", "-m", "http.server", "8080", "--bind", "::", "-d", "/usr/share/doc"]
_READY = {"httpGet": {"port": 8080}, "periodSeconds": 1}
_OBJECTS = (
    namespace_yaml("in", **_MESH)
    + pod_yaml("in/web", _WEB, node="n1", labels={"app": "web"}, readiness=_READY)
    + pod_yaml("in/client", SLEEP, node="n2")
    + object_yaml(
        *("v1", "Service", "web", "in"),
        spec={
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}],
        },
    )
)


@pytest.fixture(scope="module")
def mesh() -> Iterator[LabUnderTest]:
    with lab_under_test("mesh") as lab:
        lab.up(_OBJECTS, mesh=True)
        lab.wait_ready()
        yield lab


def _get(lab: LabUnderTest, pod: str = "in/client") -> int:
    return lab.exec(pod, "curl", "-sS", "-m", "20", "-o", "/dev/null", "http://web.in/").returncode


def test_apply_returns_when_the_pods_are_in_the_mesh(mesh: LabUnderTest) -> None:
    assert [pod["mesh"] for pod in mesh.status()["pods"]] == ["enrolled", "enrolled"]
    assert _get(mesh) == 0
    told = 'dst.identity="spiffe://cluster.local/ns/in/sa/default"'
    until("it is logged", lambda: told in mesh.must("logs", "n2", "ztunnel"))


def test_the_labels_effect_is_there_when_the_command_returns(mesh: LabUnderTest) -> None:
    mesh.apply(namespace_yaml("late") + pod_yaml("late/x", SLEEP, node="n2"))
    assert mesh.status_of("late/x")["mesh"] == "out"
    mesh.label("late", "istio.io/dataplane-mode=ambient")
    assert mesh.status_of("late/x")["mesh"] == "enrolled"
    mesh.label("late", "istio.io/dataplane-mode-")
    assert mesh.status_of("late/x")["mesh"] == "out"
    mesh.delete(namespace_yaml("late"))


def test_apply_warns_of_a_policy_that_is_enforced_as_less_than_it_says(mesh: LabUnderTest) -> None:
    def deny(**operation: list[str]) -> str:
        rules = [{"to": [{"operation": operation}]}]
        spec = {"selector": {"matchLabels": {"app": "nobody"}}, "action": "DENY", "rules": rules}
        return object_yaml("security.istio.io/v1", "AuthorizationPolicy", "half", "in", spec=spec)

    said = mesh.run("apply", "-f", "-", text=deny(methods=["DELETE"]))
    assert said.returncode == 0
    assert "warning: authorizationpolicy.security.istio.io/half: " in said.stderr
    assert "will have no effect" in said.stderr
    said = mesh.run("apply", "-f", "-", text=deny(ports=["80"]))
    assert (said.returncode, said.stderr) == (0, "")
    mesh.delete(deny(ports=["80"]))


def test_a_mesh_pod_starts_only_when_it_is_captured(mesh: LabUnderTest) -> None:
    pid = mesh.component("n2", "agent")["pid"]
    mesh.signal(pid, "STOP")
    try:
        words, text = ("apply", "--timeout", "1", "-f", "-"), pod_yaml("in/early", SLEEP, node="n2")
        assert mesh.run(*words, text=text).returncode == 1
        # The kubelet may not have come to it within that second.
        why = "pod in/early waits until the agent has enrolled it"
        until("who is late, and why", lambda: why in mesh.run(*words, text=text).stderr)
        assert (mesh.pod("in/early").phase, mesh.status_of("in/early")["pids"]) == ("Pending", [])
        assert "does not run" in mesh.exec("in/early", "true").stderr
    finally:
        mesh.signal(pid, "CONT")
    until("it runs, captured", lambda: mesh.pod("in/early").phase == "Running")
    assert mesh.status_of("in/early")["mesh"] == "enrolled"


@pytest.mark.parametrize("name", ["kubelet", "agent", "ztunnel"])
def test_a_killed_component_comes_back_by_itself(mesh: LabUnderTest, name: str) -> None:
    before = mesh.component("n1", name)["pid"]
    mesh.signal(before, "KILL")
    until(f"a new {name}", lambda: mesh.component("n1", name)["pid"] not in (None, before))
    until("the service answers", lambda: _get(mesh) == 0)


def test_a_killed_control_plane_comes_back_by_itself(mesh: LabUnderTest) -> None:
    before = mesh.status()["control"]["pid"]
    mesh.signal(before, "KILL")
    until("a new control plane", lambda: mesh.status()["control"].get("sync"))
    assert mesh.status()["control"]["pid"] != before
    mesh.apply(namespace_yaml("after"))


def test_what_a_killed_ztunnel_leaves_does_not_live_beside_the_next(mesh: LabUnderTest) -> None:
    first = mesh.component("n1", "ztunnel")
    before = set(first["pids"])
    mesh.signal(first["pid"], "KILL")

    def whole() -> bool:
        now = mesh.component("n1", "ztunnel")
        return now["pid"] not in (None, first["pid"]) and len(now["pids"]) >= len(before)

    until("a whole new ztunnel", whole)
    assert not before & set(mesh.component("n1", "ztunnel")["pids"])
    until("the service answers", lambda: _get(mesh) == 0)


def test_after_a_reboot_of_its_node_a_pod_starts_only_when_it_is_captured_again(mesh: LabUnderTest) -> None:
    before = mesh.status_of("in/web")["pids"]
    mesh.must("reboot", "n1", "--no-wait")

    def runs_again() -> bool:
        pod = mesh.status_of("in/web")
        assert not pod["pids"] or pod["mesh"] == "enrolled"
        return bool(pod["pids"])

    until("the pod runs again", runs_again)
    assert mesh.status_of("in/web")["pids"] != before
    mesh.wait_ready("in/web")
    until("the service answers", lambda: _get(mesh) == 0)


def test_a_capture_shows_the_nodes_packets(mesh: LabUnderTest, tmp_path: Path) -> None:
    target = tmp_path / "n1.pcap"
    command = [sys.executable, "-m", "ambient", "lab", "capture", "--name", mesh.name, "n1", "--write", str(target)]
    with subprocess.Popen([*command, "tcp", "port", "15008"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "listening on eth0" in process.stderr.readline()
            until("packets are written", lambda: _get(mesh) == 0 and target.stat().st_size > 1000)
        finally:
            process.terminate()
    assert b"GET /" not in target.read_bytes()


def test_the_logs_of_every_part_are_there(mesh: LabUnderTest) -> None:
    for what in (["n1", "ztunnel"], ["n1", "agent"], ["n1", "kubelet"], ["control"], ["n2", "control"], ["in/web"]):
        assert mesh.run("logs", "--tail", "3", *what).returncode == 0, what


def _kill_all(lab: LabUnderTest) -> None:
    status = lab.status()
    for pid in [*status["supervisor"]["pids"], *status["control"]["pids"]]:
        lab.signal(pid, "KILL")
    for node in status["nodes"]:
        for part in node["components"].values():
            for pid in part["pids"]:
                lab.signal(pid, "KILL")


@pytest.mark.parametrize("crash", [lambda lab: None, _kill_all], ids=["whole", "killed"])
def test_down_leaves_no_pin_either(lab: LabUnderTest, crash: Callable[[LabUnderTest], None]) -> None:
    lab.up(_OBJECTS, mesh=True)
    assert list((BPFFS / lab.name).iterdir())
    crash(lab)
    lab.must("down")
    assert remains(lab.names) == []
    assert not (BPFFS / lab.name).exists()
    assert not [name for name in os.listdir("/run/netns") if lab.name in name]
