"""What a failed test of a cluster leaves behind: logs, also of pods that are gone, dumps, events; and the worst of it
as text for the report."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.support.kube import SYSTEM, Kube

_LOOK_S: Final = 1.0
_LINES: Final = 60
_BAD: Final = re.compile(r"\t(warn|error)\t(?!access)|\b(WARNING|ERROR|CRITICAL)\b|Traceback")
_READ = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1], timeout=5).read().decode())"
_KINDS: Final = (
    "pods",
    "services",
    "endpointslices",
    "nodes",
    "leases",
    "authorizationpolicies",
    "peerauthentications",
    "gateways",
)
_PAGES: Final = {
    "ztunnel": {"config_dump": "http://127.0.0.1:15000/config_dump", "metrics": "http://127.0.0.1:15020/metrics"},
    "ambient-agent": {"pods": "http://127.0.0.1:15099/pods", "metrics": "http://127.0.0.1:15099/metrics"},
}


class Logs:
    """The logs of every pod on these nodes, hard-linked, so that they outlive their pods."""

    def __init__(self, nodes: Path, kept: Path) -> None:
        """`nodes`: the folder with a folder for each node. `kept` is emptied."""
        self._nodes = nodes
        self._kept = kept
        shutil.rmtree(kept, ignore_errors=True)

    def link(self) -> None:
        """Have what is there now."""
        for pod in self._nodes.glob("n*/var-log/pods/*"):
            with suppress(FileNotFoundError):  # the pod went while we looked
                for log in pod.glob("*/*.log"):
                    self._link_one(log, pod)

    def _link_one(self, log: Path, pod: Path) -> None:
        here = self._kept / pod.relative_to(self._nodes).parts[0] / f"{pod.name}.{log.parent.name}.{log.name}"
        here.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # it is gone again, or we have it
            os.link(log, here)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Until the end of the block."""
        over = threading.Event()

        def follow() -> None:
            while not over.wait(_LOOK_S):
                self.link()

        thread = threading.Thread(target=follow, name="logs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def save(self, folder: Path) -> None:
        self.link()
        shutil.copytree(self._kept, folder, dirs_exist_ok=True)


def gather(kube: Kube, folder: Path, logs: Logs | None) -> str:
    """Save all that may tell why into `folder`; returns where it is and what the mesh complained of lately, or why that
    could not be found out (the test has failed anyway)."""
    try:
        _save(kube, folder, logs)
    except (AssertionError, OSError, subprocess.SubprocessError, ValueError) as error:
        return f"in {folder} not everything could be saved: {error}"
    return "\n".join([f"saved in {folder}", *_complaints(folder)])


def _save(kube: Kube, folder: Path, logs: Logs | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, argv in {
        "pods": ("get", "pods", "-A", "-o", "wide"),
        "objects.yaml": ("get", ",".join(_KINDS), "-A", "-o", "yaml"),
        "events": ("get", "events", "-A", "--sort-by=.lastTimestamp"),
    }.items():
        (folder / name).write_text(kube.run(*argv, check=False))
    for pod in kube.all("pods", SYSTEM):
        name, app = pod["metadata"]["name"], pod["metadata"].get("labels", {}).get("app", "")
        (folder / f"{name}.log").write_text(kube.run("-n", SYSTEM, "logs", name, check=False))
        for page, url in _PAGES.get(app, {}).items():
            read = kube.exec(SYSTEM, name, "python3", "-c", _READ, url)
            (folder / f"{name}.{page}").write_text(read.stdout or read.stderr)
    if logs is not None:
        logs.save(folder / "logs")


def _complaints(folder: Path) -> Iterator[str]:
    """The last lines of each log of the mesh's own that are more than news."""
    for log in sorted(folder.rglob("*.log")):
        if log.parent != folder and not log.name.startswith(SYSTEM):
            continue
        found = [line for line in log.read_text(errors="replace").splitlines() if _BAD.search(line)]
        if found:
            yield f"--- {log.relative_to(folder)}"
            yield from (line[:400] for line in found[-_LINES:])
