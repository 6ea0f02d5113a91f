"""What documents say of a cluster, on one: their commands in their order, with what they print."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.docs import run
from tests.support.kube import Kube


def environment(kube: Kube, folder: Path) -> dict[str, str]:
    programs = folder / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(kube.kubectl)
    return {
        "KUBECONFIG": str(kube.kubeconfig),
        "IMAGE": kube.image,
        "AMBIENT_LAB": "none-of-this-name",
        "PATH": f"{programs}:{os.environ['PATH']}",
    }


def test_a_newcomer_gets_through_on_a_cluster(kube: Kube, tmp_path: Path) -> None:
    try:
        run("docs/quickstart.md", "cluster", environment(kube, tmp_path), timeout_s=500)
    finally:
        kube.run("delete", "namespace", "shop", "--ignore-not-found", timeout=300)


def test_a_waypoint_is_made_as_its_document_says(kube: Kube, tmp_path: Path) -> None:
    try:
        run("docs/waypoint.md", "cluster", environment(kube, tmp_path), timeout_s=500)
    finally:
        kube.run("delete", "namespace", "books", "--ignore-not-found", "--wait=false", timeout=300)
