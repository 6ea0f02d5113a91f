"""Which mesh the options and the environment name."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ambient.cli.cluster import ClusterReach
from ambient.cli.env import Usage
from ambient.cli.reach import HostReach, Reach
from ambient.cli.which import mesh_options, reach
from ambient.errors import InvalidInput

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: one
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}, {name: d, cluster: {server: "http://127.0.0.1:2"}}]
contexts: [{name: one, context: {cluster: c, user: u}}, {name: two, context: {cluster: d, user: u}}]
users: [{name: u, user: {}}]
"""


def _reach(*argv: str, **environ: str) -> Reach:
    parser = argparse.ArgumentParser()
    mesh_options(parser)
    return reach(parser.parse_args(argv), environ)


def _label(found: Reach) -> str:
    if isinstance(found, ClusterReach):
        found.close()
    return found.label


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    return str(path)


def test_a_lab_that_does_not_run_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidInput, match="ambient lab up --name nowhere-at-all"):
        _reach("--name", "nowhere-at-all")


@pytest.mark.parametrize("name", ["UPPER", "a/b", "..", ""])
def test_what_cannot_be_a_lab_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        _reach("--name", name)


def test_a_lab_and_a_cluster_at_once_is_a_slip() -> None:
    with pytest.raises(Usage, match="give one of them"):
        _reach("--name", "lab", "--context", "two")


def test_a_context_is_a_cluster(config: str) -> None:
    assert _label(_reach("--kubeconfig", config)) == "cluster 127.0.0.1:1"
    assert _label(_reach("--kubeconfig", config, "--context", "two")) == "cluster 127.0.0.1:2"
    assert _label(_reach("--context", "two", KUBECONFIG=config)) == "cluster 127.0.0.1:2"
    with pytest.raises(InvalidInput, match="no such context"):
        _reach("--context", "three", KUBECONFIG=config)


def test_without_a_word_a_kubeconfig_counts_and_on_a_node_the_node(config: str) -> None:
    assert _label(_reach(KUBECONFIG=config)) == "cluster 127.0.0.1:1"
    here = _reach(NODE_NAME="n7", HOME="/nonexistent")
    assert isinstance(here, HostReach)
    assert here.nodes() == ["n7"]


def test_a_kubeconfig_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="/no/such/file"):
        _reach("--kubeconfig", "/no/such/file")
