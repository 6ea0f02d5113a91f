"""What the kubelet does for a pod: exec, environment, restarts, probes, termination, adoption after a crash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambient.cli.demo.stage import PYTHON
from ambient.lab import network
from ambient.lab.process import alive
from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, pod_yaml, until


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with lab_under_test("pods") as lab:
        lab.up(namespace_yaml("a") + pod_yaml("a/still", SLEEP, node="n1"))
        lab.wait_ready()
        yield lab


def _containers(lab: LabUnderTest, pod: str) -> list[dict[str, Any]]:
    containers: list[dict[str, Any]] = lab.status_of(pod)["containers"]
    return containers


def _main_pid(lab: LabUnderTest, pod: str) -> int:
    """0 while the first container does not run."""
    return int(_containers(lab, pod)[0]["state"].get("running", {}).get("pid", 0))


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exec_gives_the_exit_code_of_the_command(lab: LabUnderTest, code: int) -> None:
    assert lab.exec("a/still", "sh", "-c", f"exit {code}").returncode == code


def test_exec_keeps_the_three_streams_apart(lab: LabUnderTest) -> None:
    done = lab.exec("a/still", "sh", "-c", "cat; echo complaint >&2", text="word\n" * 10_000)
    assert (done.stdout, done.stderr) == ("word\n" * 10_000, "complaint\n")


def test_exec_does_not_touch_the_arguments(lab: LabUnderTest) -> None:
    awkward = ["a b", "$HOME", "--", "-c", "'\"", "", "*", "\n"]
    done = lab.exec("a/still", "python3", "-c", "import sys; print(sys.argv[1:])", *awkward)
    assert done.stdout.strip() == repr(awkward)


def test_exec_runs_in_the_pods_namespaces_and_cgroup(lab: LabUnderTest) -> None:
    done = lab.exec("a/still", "sh", "-c", "hostname; readlink /proc/self/ns/net; tail -n1 /proc/self/cgroup")
    hostname, netns, cgroup = done.stdout.split()
    assert hostname == "still"
    assert netns == f"net:[{network.inode(lab.names.pod('a', 'still'))}]"
    assert lab.names.pod_cgroup("n1", lab.pod("a/still").uid) in cgroup


@pytest.mark.parametrize(("pod", "why"), [("a/none", "not found"), ("still", "not found"), ("a/b/c", "NAMESPACE/POD")])
def test_exec_into_a_pod_that_is_not_there_says_so(lab: LabUnderTest, pod: str, why: str) -> None:
    done = lab.exec(pod, "true")
    assert done.returncode == 1
    assert why in done.stderr


def test_exec_without_a_command_is_wrong_usage(lab: LabUnderTest) -> None:
    assert lab.run("exec", "a/still").returncode == 2


def test_a_container_gets_its_environment_and_nothing_of_ours(lab: LabUnderTest) -> None:
    env = [
        {"name": "GREETING", "value": "hello $(HOSTNAME) $(UNKNOWN) $$(HOSTNAME)"},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    lab.apply(pod_yaml("a/env", ["sh", "-c", "env; echo '$(GREETING)'"], node="n1", env=env, restart="Never"))
    until("it ended", lambda: lab.pod("a/env").phase == "Succeeded")
    lines = lab.must("logs", "a/env").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    assert values["GREETING"] == "hello env $(UNKNOWN) $(HOSTNAME)"
    assert (values["NODE"], values["IP"]) == ("n1", lab.ip("a/env"))
    assert values.keys() <= {"GREETING", "NODE", "IP", "PATH", "HOME", "HOSTNAME", "PWD", "SHLVL", "_", "OLDPWD"}
    assert "hello env $(UNKNOWN) $(HOSTNAME)" in lines


@pytest.mark.parametrize(
    ("policy", "code", "phase", "again"),
    [
        ("Never", 0, "Succeeded", False),
        ("Never", 3, "Failed", False),
        ("OnFailure", 0, "Succeeded", False),
        ("OnFailure", 3, "Running", True),
        ("Always", 0, "Running", True),
    ],
)
def test_the_restart_policy_is_honoured(lab: LabUnderTest, policy: str, code: int, phase: str, again: bool) -> None:
    pod = f"a/{policy.lower()}-{code}"
    lab.apply(pod_yaml(pod, ["sh", "-c", f"exit {code}"], node="n1", restart=policy))
    if again:
        until("it was restarted", lambda: lab.status_of(pod)["restarts"] >= 2)
    else:
        until("it ended", lambda: lab.pod(pod).phase == phase)
        assert _containers(lab, pod)[0]["state"]["terminated"]["exitCode"] == code
    assert lab.pod(pod).phase == phase
    lab.delete(pod_yaml(pod, ["true"]))


def test_a_failing_liveness_probe_restarts_the_container(lab: LabUnderTest) -> None:
    probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1}
    lab.apply(pod_yaml("a/sick", SLEEP, node="n1", liveness=probe))
    until("it was restarted", lambda: lab.status_of("a/sick")["restarts"] >= 1)
    lab.delete(pod_yaml("a/sick", SLEEP))


def test_a_pod_is_not_ready_before_its_startup_probe_passes(lab: LabUnderTest) -> None:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 100}
    lab.apply(pod_yaml("a/slow", SLEEP, node="n1", startup=probe))
    assert (lab.pod("a/slow").phase, lab.pod("a/slow").ready) == ("Running", False)
    with lab.start("a/slow", "python3", "-m", "http.server", "8080") as server:
        try:
            lab.wait_ready("a/slow")
            lab.delete(pod_yaml("a/slow", SLEEP))
        finally:
            server.kill()


def test_deleting_asks_first_and_waits_for_the_grace_period(lab: LabUnderTest, tmp_path: Path) -> None:
    polite = f"trap 'echo bye > {tmp_path}/said; exit' TERM; >{tmp_path}/polite; while :; do sleep 0.1; done"
    stubborn = f"trap '' TERM; >{tmp_path}/stubborn; while :; do sleep 0.1; done"
    pods = pod_yaml("a/polite", ["sh", "-c", polite], node="n1", grace=20)
    pods += pod_yaml("a/stubborn", ["sh", "-c", stubborn], node="n1", grace=1)
    lab.apply(pods)
    pids = [_main_pid(lab, pod) for pod in ("a/polite", "a/stubborn")]
    until("both have said what they do then", lambda: {"polite", "stubborn"} <= {*os.listdir(tmp_path)})
    assert all(alive(pid) for pid in pids)
    lab.delete(pods)
    assert (tmp_path / "said").read_text() == "bye\n"
    assert not any(alive(pid) for pid in pids)
    assert not [name for name in os.listdir("/run/netns") if name.endswith(("a.polite", "a.stubborn"))]


PARENT = r"""
import signal, subprocess, sys, threading
told = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: told.set())
child = subprocess.Popen(["sleep", "1000"])
open(sys.argv[1] + ".up", "w").close()
told.wait()
try:
    code = child.wait(0.5)
except subprocess.TimeoutExpired:
    code = "none"
open(sys.argv[1], "w").write(f"{child.pid} {code}")
"""


def test_only_a_containers_first_process_is_asked_to_end_and_the_others_end_with_it(
    lab: LabUnderTest, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    text = pod_yaml("a/parent", [PYTHON, "-c", PARENT, str(said)], node="n1", grace=30)
    lab.apply(text)
    until("its child runs", (tmp_path / "said.up").exists)
    lab.delete(text)
    pid, code = said.read_text().split()
    assert code == "none"
    assert not alive(int(pid))


def test_containers_of_a_pod_share_its_network(lab: LabUnderTest) -> None:
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: two, namespace: a}\nspec:\n  nodeName: n1\n  containers:\n"
        "  - {name: server, command: [python3, -m, http.server, '8080']}\n"
        "  - name: client\n    command: [sh, -c, 'until curl -sf -o /dev/null http://127.0.0.1:8080/; do sleep 0.1; "
        "done; echo reached; sleep infinity']\n"
    )
    until("the client reached the server", lambda: "reached" in lab.run("logs", "a/two", "-c", "client").stdout)


def test_a_host_network_pod_has_the_nodes_address(lab: LabUnderTest) -> None:
    lab.apply(pod_yaml("a/host", SLEEP, node="n1", host=True))
    node = lab.status()["nodes"][0]
    assert lab.status_of("a/host")["ips"] == node["addresses"]
    done = lab.exec("a/host", "readlink", "/proc/self/ns/net")
    assert done.stdout.strip() == f"net:[{network.inode(node['netns'])}]"


@pytest.mark.parametrize("victim", ["kubelet", "supervisor", "both"])
def test_after_a_crash_of_the_kubelet_pods_go_on_and_are_looked_after_again(lab: LabUnderTest, victim: str) -> None:
    before = lab.status()
    running = _main_pid(lab, "a/still")
    kubelet, supervisor = lab.component("n1", "kubelet")["pid"], before["supervisor"]["pids"][0]
    for pid in {"kubelet": [kubelet], "supervisor": [supervisor], "both": [supervisor, kubelet]}[victim]:
        lab.signal(pid, "KILL")
    if victim == "both":
        lab.must("up", "--no-mesh")  # nobody is left who could; a human may
    if victim != "supervisor":
        until("a new kubelet", lambda: lab.component("n1", "kubelet")["pid"] not in (None, kubelet))
    if victim != "kubelet":
        until("a new supervisor", lambda: lab.status()["supervisor"]["pids"] not in ([], [supervisor]))
    lab.apply(pod_yaml(f"a/after-{victim}", SLEEP, node="n1"))
    assert lab.exec(f"a/after-{victim}", "true").returncode == 0
    assert _main_pid(lab, "a/still") == running
    lab.signal(running, "KILL")
    until("the adopted pod was restarted", lambda: _main_pid(lab, "a/still") not in (0, running))


def test_a_pod_deleted_while_no_kubelet_runs_goes_when_one_does(lab: LabUnderTest) -> None:
    pod = pod_yaml("a/orphan", SLEEP, node="n1")
    lab.apply(pod)
    pids = lab.status_of("a/orphan")["pids"]
    lab.signal(lab.component("n1", "kubelet")["pid"], "KILL")
    lab.delete(pod)
    assert not any(alive(pid) for pid in pids)
    assert not os.path.exists(f"/run/netns/{lab.names.pod('a', 'orphan')}")
