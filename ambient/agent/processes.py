"""Finds a pod's network namespace, and the kubelet, among the node's processes.

A process is held by a descriptor of its /proc directory while it is looked at: when it ends, every further read fails,
so that a number which is used again for another process never answers for the first. Reads only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.errors import Unavailable

KUBELETS: Final = frozenset({"kubelet", "kubelite", "k3s", "k3s-server", "k3s-agent", "k0s", "rke2"})
"""The programs that a kubelet runs in, by the kernel's name of the process."""
_POD: Final = re.compile(
    r"(?:^|[/:-])pod(?P<uid>[0-9a-f]{8}(?:([-_])[0-9a-f]{4}(?:\2[0-9a-f]{4}){2}\2)[0-9a-f]{12}|[0-9a-f]{32})(?=[/:]|\.slice|$)"
)
_START_TIME: Final = 19
"""Where a process' start is in /proc/<pid>/stat, counted behind the parenthesised name (field 22, proc(5))."""


def pod_uid(cgroups: str) -> str | None:
    """The uid of the pod that a process belongs to, from its /proc/<pid>/cgroup; None for one of the node's own.

    Known layouts: cgroupfs ("/kubepods/besteffort/pod<uid>/<container>"), systemd
    ("kubepods-besteffort-pod<uid with _>.slice/cri-containerd-<id>.scope", "crio-<id>.scope"), containerd's
    "<slice>:cri-containerd:<id>", each in cgroup v1, v2 or both, below any parent (a node that is a container itself).
    Of several in one path the outermost counts, since a pod may make groups below its own, and call them as it likes;
    hierarchies that do not agree tell nothing.
    """
    uids = set()
    for line in cgroups.splitlines():
        match = _POD.search(line.split(":", 2)[-1])
        if match is not None:
            uids.add(match["uid"].replace("_", "-"))
    return uids.pop() if len(uids) == 1 else None


@dataclass(frozen=True, slots=True)
class Process:
    """One process, held open by its /proc directory. `directory` is a descriptor."""

    pid: int
    directory: int

    def read(self, name: str) -> str:
        """A file of it; raises OSError when the process is gone."""
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory)
        with os.fdopen(fd, "rb") as file:
            return file.read().decode(errors="replace")

    def pod_uid(self) -> str | None:
        return pod_uid(self.read("cgroup"))

    def started(self) -> int:
        """Clock ticks since boot."""
        return int(self.read("stat").rpartition(")")[2].split()[_START_TIME])

    def namespace(self, kind: str) -> int:
        """The inode of its namespace."""
        return os.stat(f"ns/{kind}", dir_fd=self.directory).st_ino

    def open_netns(self) -> int:
        return os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.directory)


@contextmanager
def held(pid: int, proc: Path = Path("/proc")) -> Iterator[Process]:
    """Raises OSError when there is no such process."""
    directory = os.open(proc / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Process(pid, directory)
    finally:
        os.close(directory)


def pids(proc: Path = Path("/proc")) -> list[int]:
    return sorted(int(name) for name in os.listdir(proc) if name.isdecimal())


class PodProcesses:
    """Remembers which process answered for a pod last; asks again only when that one is gone."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._answered: dict[str, int] = {}

    def open_netns(self, uid: str) -> int:
        """A descriptor of the pod's network namespace, for the caller to close.

        That is the namespace of the pod's oldest process (the sandbox; a container may make others of its own). Raises
        Unavailable when no process of the pod has one other than the node's.
        """
        netns = self._of_process(self._answered.get(uid), uid)
        if netns is None:
            self._look()
            netns = self._of_process(self._answered.get(uid), uid)
        if netns is None:
            raise Unavailable("pod network namespace", f"pod uid {uid}", "no process of the pod runs on this node")
        return netns

    def _of_process(self, pid: int | None, uid: str) -> int | None:
        if pid is None:
            return None
        with suppress(OSError), held(pid, self._proc) as process:
            if process.pod_uid() == uid:
                return process.open_netns()
        return None

    def _look(self) -> None:
        """One pass over all processes, for every pod at once."""
        home = _nodes_network(self._proc)
        oldest: dict[str, tuple[int, int]] = {}
        for pid in pids(self._proc):
            with suppress(OSError, ValueError, IndexError), held(pid, self._proc) as process:
                uid = process.pod_uid()
                if uid is None or process.namespace("net") == home:
                    continue
                known = (process.started(), pid)
                oldest[uid] = min(oldest.get(uid, known), known)
        self._answered = {uid: pid for uid, (_, pid) in oldest.items()}


def _nodes_network(proc: Path) -> int:
    """The inode of the node's network namespace: its first process', else (where that may not be read) our own."""
    try:
        return os.stat(proc / "1/ns/net").st_ino
    except PermissionError:
        return os.stat(proc / "self/ns/net").st_ino


def find_kubelet(proc: Path = Path("/proc")) -> int:
    """The pid of the node's kubelet, of several processes that could be it the lowest. Raises Unavailable when there
    is none.

    Anybody can call a process so: it has to be root's, in the node's own namespaces, and in no pod.
    """
    found = set()
    for pid in pids(proc):
        with suppress(OSError, IndexError, ValueError), held(pid, proc) as process:
            if process.read("comm").strip() in KUBELETS and _is_the_nodes_own(process, proc):
                found.add(pid)
    if not found:
        raise Unavailable("kubelet", str(proc), f"no process of the node is called {', '.join(sorted(KUBELETS))}")
    return min(found)


def _is_the_nodes_own(process: Process, proc: Path) -> bool:
    if process.pod_uid() is not None or _owner(process) != "0":
        return False
    return all(process.namespace(kind) == os.stat(proc / f"1/ns/{kind}").st_ino for kind in ("net", "pid"))


def _owner(process: Process) -> str:
    line = next(line for line in process.read("status").splitlines() if line.startswith("Uid:"))
    return line.split()[2]
