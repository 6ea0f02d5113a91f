from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ambient.agent import host
from ambient.agent.host import Kubelet
from ambient.agent.locate import NODE_ROOT, ByKubelet, ByName
from ambient.agent.owners import Owners
from ambient.agent.sandboxes import Sandboxes
from ambient.agent.settings import AgentSettings
from ambient.datapath.layout import Role
from ambient.errors import Unavailable
from ambient.settings import read_settings
from tests.ambient.agent.test_owners import Table, cgroup
from tests.ambient.agent.test_processes import UID, Machine


def settings(**changed: str) -> AgentSettings:
    given: dict[str, Any] = {"NODE_NAME": "n1", "AMBIENT_OBJECTS": "/x", "AMBIENT_POD_NETNS": "/run/netns/{name}"}
    return read_settings(AgentSettings, {**given, **changed})


def test_pods_are_found_by_template_in_the_lab_and_by_the_runtime_on_kubernetes(tmp_path: Path) -> None:
    lab, real = settings(), settings(AMBIENT_POD_NETNS="kubernetes")
    assert (lab.on_kubernetes, host.node_root(lab)) == (False, Path("/"))
    assert (real.on_kubernetes, host.node_root(real)) == (True, NODE_ROOT)
    assert isinstance(host.locator(lab, Sandboxes(tmp_path)), ByName)
    assert isinstance(host.locator(real, Sandboxes(tmp_path)), ByKubelet)


def test_the_plugin_is_installed_only_where_the_agent_is_told_to() -> None:
    assert host.installation(settings()) is None
    assert host.installation(settings(AMBIENT_CNI_CONF_DIR="/c", AMBIENT_CNI_UDS="/s")) is not None
    with pytest.raises(Unavailable, match="AMBIENT_CNI_UDS"):
        host.installation(settings(AMBIENT_CNI_CONF_DIR="/c"))


def test_the_mesh_and_the_system_start_in_any_case() -> None:
    given = settings(EXCLUDE_NAMESPACES="kube-system,cni", AMBIENT_NAMESPACE="mesh")
    assert given.passing_namespaces == {"kube-system", "cni", "mesh"}


class Node:
    """A /proc and a cgroup v2 of files, with a kubelet."""

    def __init__(self, root: Path) -> None:
        self.proc = root / "proc"
        self.proc.mkdir()
        self.machine = Machine(self.proc)
        self.mount = root / "cgroup"
        self.table = Table()
        self.kubelet = Kubelet(Path("auto"), Owners(self.table, self.mount, self.proc), self.mount, self.proc)

    def runs(self, pid: int, inside: str) -> int:
        self.machine.process(pid, "kubelet", f"0::/{inside}")
        return cgroup(self.mount / inside)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_given_cgroup_is_the_kubelets(tmp_path: Path) -> None:
    table = Table()
    number = cgroup(tmp_path / "kubelet")
    Kubelet(tmp_path / "kubelet", Owners(table, tmp_path), tmp_path).look()
    assert table == {number: Role.KUBELET}


def test_nobody_is_the_kubelet_when_none_is_named() -> None:
    table = Table()
    Kubelet(None, Owners(table, None), None).look()
    assert table == {}


def test_the_kubelet_is_found_and_followed_into_another_cgroup(node: Node) -> None:
    first = node.runs(99, "system.slice/kubelet.service")
    node.kubelet.look()
    assert node.table == {first: Role.KUBELET}
    node.machine.end(99)
    second = node.runs(120, "kubelet-of-today")
    node.kubelet.look()
    assert node.table == {second: Role.KUBELET}


def test_a_kubelet_that_is_gone_leaves_no_cgroup_that_others_may_use(node: Node) -> None:
    node.runs(99, "system.slice/kubelet.service")
    node.kubelet.look()
    node.machine.end(99)
    node.kubelet.look()
    assert node.table == {}


def test_a_cgroup_that_it_shares_with_pods_is_not_the_kubelets(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """Pods that only cgroup v1 tells apart: everybody in the root of v2."""
    node.runs(99, "")
    node.machine.process(500, "app", f"4:memory:/kubepods/pod{UID}/a\n0::/")
    node.kubelet.look()
    assert node.table == {}
    assert "pid 500 of a pod" in caplog.text


def test_the_root_is_the_kubelets_where_every_pod_has_its_own(node: Node) -> None:
    """Sabotage of the check above: the same kubelet, the pod told apart."""
    number = node.runs(99, "")
    node.machine.process(500, "app", f"4:memory:/kubepods/pod{UID}/a\n0::/kubepods/pod{UID}/a")
    node.kubelet.look()
    assert node.table == {number: Role.KUBELET}


def test_without_cgroup_v2_it_is_not_looked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Kubelet(Path("auto"), Owners(Table(), None), None, tmp_path).look()
    assert "without cgroup v2" in caplog.text
