"""Installing, upgrading and uninstalling with our own command; what is left afterwards is nothing. Runs last."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.lab import configuration, node
from tests.cluster.lab.plan import Plan
from tests.support.kube import LABEL, ROLLED, SYSTEM, Kube, account, eventually, pod, redirection, service
from tests.support.kube_apps import PORTS, client, server

SPACE = "leaving"


@pytest.fixture(scope="module")
def space(kube: Kube) -> Iterator[str]:
    with kube.namespace(SPACE):
        kube.apply(
            *(account(SPACE, name) for name in ("db", "web")),
            service(SPACE, "db", **PORTS),
            pod(SPACE, "db", server(kube, node="n1", account="db")),
            pod(SPACE, "web", client(node="n2", account="web")),
        )
        kube.ready(SPACE)
        yield SPACE


def inside(lab: Plan, number: int, *argv: str) -> str:
    """What a command says that runs on a node."""
    entered = node.enter(lab, number, argv)
    return subprocess.run(entered, capture_output=True, text=True, check=False, timeout=60).stdout


def test_the_command_line_installs_what_the_chart_does(kube: Kube, space: str) -> None:
    said = kube.ambient("upgrade", "--image", kube.image, "--diff")
    assert said.returncode == 0, said.stdout + said.stderr
    said = kube.ambient("upgrade", "--image", kube.image, "--set", "LOG_LEVEL=debug", "--diff")
    assert said.returncode == 3
    assert "ConfigMap ambient-system/ambient: data.LOG_LEVEL: info -> debug" in said.stdout
    said = kube.ambient("upgrade", "--image", kube.image)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "ready    DaemonSet ambient-system/ztunnel" in said.stdout
    again = kube.ambient("upgrade", "--image", kube.image, "--diff")
    assert again.returncode == 0, again.stdout


def test_before_installing_it_says_whether_the_cluster_would_take_it(kube: Kube) -> None:
    said = kube.ambient("check", "--pre")
    assert said.returncode == 0, said.stdout + said.stderr
    assert "node n1" in said.stdout


def test_an_image_that_is_not_there_is_told_by_name(kube: Kube, space: str) -> None:
    said = kube.ambient("upgrade", "--image", "localhost/nothing:1", "--timeout", "30")
    assert said.returncode == 1
    assert "localhost/nothing:1" in said.stderr
    assert kube.fetch(space, "web", "http://db/id")
    assert kube.ambient("upgrade", "--image", kube.image).returncode == 0
    kube.rolled_out(*ROLLED)


def test_it_is_not_uninstalled_while_somebody_uses_it(kube: Kube, space: str) -> None:
    said = kube.ambient("uninstall")
    assert said.returncode == 1
    assert f"namespace {SPACE}" in said.stderr
    assert kube.fetch(space, "web", "http://db/id")


def test_uninstalling_leaves_no_trace(kube: Kube, space: str, lab: Plan) -> None:
    for one in kube.all("namespaces", labels=f"{LABEL}=ambient"):
        kube.run("label", "namespace", one["metadata"]["name"], f"{LABEL}-")
    eventually(lambda: {redirection(one) for one in kube.all("pods", space)} == {""}, "for the pods to be out")
    said = kube.ambient("uninstall", "--crds")
    assert said.returncode == 0, said.stdout + said.stderr
    # Of the cluster.
    for kind in ("clusterroles", "clusterrolebindings", "validatingwebhookconfigurations"):
        assert kube.all(kind, labels="app.kubernetes.io/part-of=ambient") == []
    assert [one for one in kube.all("crd") if "istio.io" in one["metadata"]["name"]] == []
    eventually(lambda: kube.all("gatewayclasses") == [], "for the class of waypoints to be gone")
    eventually(lambda: SYSTEM not in kube.run("get", "namespaces", "-o", "name"), "for the namespace to be gone")
    assert kube.all("configmaps", fields="metadata.name=istio-ca-root-cert") == []
    assert {redirection(one) for one in kube.all("pods")} == {""}
    # Of the nodes.
    for number in lab.nodes():
        assert inside(lab, number, "sh", "-c", "cd /etc/cni/net.d && ls -A").split() == ["10-lab.conflist"]
        assert inside(lab, number, "cat", "/etc/cni/net.d/10-lab.conflist") == configuration.network(lab, number)
        assert set(inside(lab, number, "ls", "-A", "/opt/cni/bin").split()) == set(node.CNI_PLUGINS)
        # The kernel's own files there end in .debug.
        assert inside(lab, number, "find", "/sys/fs/bpf", "-mindepth", "1", "!", "-name", "*.debug") == ""
        assert inside(lab, number, "find", "/run/ambient", "/run/ztunnel", "-type", "f,s") == ""
    # Of the pods, which speak to each other as if nothing had ever been.
    for name in ("db", "web"):
        rules = (
            kube.exec(space, name, "ip", "rule").stdout
            + kube.exec(space, name, "ip", "route", "show", "table", "all").stdout
        )
        assert "0x53a" not in rules
        assert "table 100" not in rules
    assert kube.fetch(space, "web", "http://db/id")
    kube.apply(pod(space, "late", client(node="n1")))
    kube.ready(space, "app=late")
    assert kube.fetch(space, "late", "http://db/id")
