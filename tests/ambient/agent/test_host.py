from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ambient.agent import host
from ambient.agent.locate import NODE_ROOT, ByKubelet, ByName
from ambient.agent.owners import Owners
from ambient.agent.sandboxes import Sandboxes
from ambient.agent.settings import AgentSettings
from ambient.datapath.layout import Role
from ambient.errors import Unavailable
from ambient.settings import read_settings
from tests.ambient.agent.test_owners import Table, cgroup


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


def test_a_given_cgroup_is_the_kubelets(tmp_path: Path) -> None:
    table = Table()
    number = cgroup(tmp_path / "kubelet")
    host.admit_kubelet(settings(AMBIENT_KUBELET_CGROUP=str(tmp_path / "kubelet")), Owners(table, tmp_path))
    assert table == {number: Role.KUBELET}


def test_nobody_is_the_kubelet_when_none_is_named() -> None:
    table = Table()
    host.admit_kubelet(settings(), Owners(table, None))
    assert table == {}
