from __future__ import annotations

from pathlib import Path

import pytest

from ambient.agent.locate import ByKubelet, ByName, below
from ambient.agent.processes import PodProcesses
from ambient.agent.sandboxes import Sandbox, Sandboxes
from ambient.errors import Unavailable


def machine(root: Path) -> Path:
    (root / "1/ns").mkdir(parents=True)
    (root / "1/ns/net").write_text("")
    return root


def test_a_name_that_is_not_there_is_an_error_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"/shop-web-u1"):
        ByName(f"{tmp_path}/{{namespace}}-{{name}}-{{uid}}").open("u1", "shop", "web")


def test_a_path_told_by_the_runtime_that_is_gone_leaves_the_processes_to_ask(tmp_path: Path) -> None:
    sandboxes = Sandboxes(tmp_path / "sandboxes")
    sandboxes.put("u1", Sandbox("c", "/run/netns/gone", ()))
    with pytest.raises(Unavailable, match="no process of the pod"):
        ByKubelet(sandboxes, PodProcesses(machine(tmp_path)), tmp_path).open("u1", "shop", "web")


def test_a_path_that_is_no_namespace_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sandboxes = Sandboxes(tmp_path / "sandboxes")
    sandboxes.put("u1", Sandbox("c", "/file", ()))
    with pytest.raises(Unavailable, match="no process of the pod"):
        ByKubelet(sandboxes, PodProcesses(machine(tmp_path)), tmp_path).open("u1", "shop", "web")


def test_a_process_number_told_as_a_path_is_not_used(tmp_path: Path) -> None:
    """It may be another pod's by now."""
    sandboxes = Sandboxes(tmp_path / "sandboxes")
    sandboxes.put("u1", Sandbox("c", "/proc/self/ns/net", ()))
    with pytest.raises(Unavailable, match="no process of the pod"):
        ByKubelet(sandboxes, PodProcesses(machine(tmp_path)), Path("/")).open("u1", "shop", "web")


def test_links_of_the_node_lead_to_the_nodes_own_files(tmp_path: Path) -> None:
    (tmp_path / "run/netns").mkdir(parents=True)
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    (tmp_path / "far").symlink_to("../../../var/run/./netns")
    for path in ("/var/run/netns/cni-1", "/run/netns/cni-1", "/far/cni-1", "/../run/netns/cni-1"):
        assert below(tmp_path, path) == str(tmp_path / "run/netns/cni-1")


def test_a_link_that_leads_to_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/a")
    assert below(tmp_path, "/a/b") == str(tmp_path)
