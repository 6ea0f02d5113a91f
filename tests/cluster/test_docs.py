"""What the quickstart says of a cluster, on one: its commands in their order, with what they print."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.docs import run
from tests.support.kube import Kube


def test_a_newcomer_gets_through_on_a_cluster(kube: Kube, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(kube.kubectl)
    environment = {
        "KUBECONFIG": str(kube.kubeconfig),
        "IMAGE": kube.image,
        "AMBIENT_LAB": "none-of-this-name",
        "PATH": f"{programs}:{os.environ['PATH']}",
    }
    try:
        run("docs/quickstart.md", "cluster", environment, timeout_s=500)
    finally:
        kube.run("delete", "namespace", "shop", "--ignore-not-found", timeout=300)
