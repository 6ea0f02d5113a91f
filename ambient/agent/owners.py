"""Whose sockets may carry the proxy mark: the cgroups of ztunnel and kubelet, kept in the owners map.

A ztunnel's entry outlives its ZDS connection for as long as a process is left in its cgroup: workers go on while the
director restarts. May not guess: a cgroup that cannot be found is no ztunnel's. What it once made is still ztunnel's,
for the next one has its listening sockets: so it is remembered as a former one (the kernel uses no id twice).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from ambient.datapath.layout import Role

MOST_FORMER: Final = 512
"""So many former ztunnels are remembered, half of what the map takes; ids grow, so the lowest go first."""

log = logging.getLogger("ambient.agent.owners")


class OwnerTable(Protocol):
    """The owners map as this module uses it: cgroup v2 id -> Role."""

    def put(self, cgroup_id: int, role: Role, /) -> None: ...
    def delete(self, cgroup_id: int, /) -> object: ...
    def items(self) -> Mapping[int, Role]: ...


def cgroup_of(pid: int, mount: Path, proc: Path = Path("/proc")) -> Path | None:
    """The cgroup v2 directory of a process; None when it is gone or lies outside what we can see."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::"):
            inside = line[3:].lstrip("/")
            return None if inside.startswith("..") else mount / inside
    return None


class Owners:
    """`mount` is where cgroup v2 is (None: nowhere)."""

    def __init__(self, table: OwnerTable, mount: Path | None, proc: Path = Path("/proc")) -> None:
        self._table = table
        self._mount = mount
        self._proc = proc
        self._ztunnels: dict[int, Path] = {}

    def adopt(self) -> None:
        """Take over what an agent before us has entered; what has no cgroup any more is taken out."""
        known = {i: role for i, role in self._table.items().items() if role is Role.ZTUNNEL}
        if not known:
            return
        found = {} if self._mount is None else directories(self._mount, set(known))
        self._ztunnels.update(found)
        for cgroup_id in known.keys() - found.keys():
            self._bury(cgroup_id)

    def admit_ztunnel(self, pid: int) -> None:
        """Let the sockets of this process' cgroup carry the proxy mark."""
        directory = None if self._mount is None else cgroup_of(pid, self._mount, self._proc)
        if directory is None or not directory.is_dir():
            log.warning("owners: pid %d has no cgroup v2 of its own that we can see: the mark alone decides", pid)
            return
        if directory == self._mount:
            log.warning("owners: ztunnel pid %d runs in the root cgroup: it is told apart only from other cgroups", pid)
        cgroup_id = directory.stat().st_ino
        self._ztunnels[cgroup_id] = directory
        self._table.put(cgroup_id, Role.ZTUNNEL)

    def admit_kubelet(self, directory: Path) -> None:
        """Let probes of the processes in this cgroup reach pods. Other kubelet entries are taken out."""
        cgroup_id = directory.stat().st_ino
        for other, role in self._table.items().items():
            if role is Role.KUBELET and other != cgroup_id:
                self._table.delete(other)
        self._table.put(cgroup_id, Role.KUBELET)

    def dismiss_kubelet(self) -> None:
        """Nobody's connections are probes from now on."""
        for other, role in self._table.items().items():
            if role is Role.KUBELET:
                self._table.delete(other)

    def prune(self) -> None:
        """Ztunnels of which no process is left are former ones."""
        for cgroup_id, directory in list(self._ztunnels.items()):
            if not _populated(directory, cgroup_id):
                self._bury(cgroup_id)
                del self._ztunnels[cgroup_id]
                log.info("owners: ztunnel's cgroup %s is empty, its mark counts no more", directory)

    def _bury(self, cgroup_id: int) -> None:
        self._table.put(cgroup_id, Role.FORMER_ZTUNNEL)
        former = sorted(i for i, role in self._table.items().items() if role is Role.FORMER_ZTUNNEL)
        for oldest in former[:-MOST_FORMER]:
            self._table.delete(oldest)


def _populated(directory: Path, cgroup_id: int) -> bool:
    try:
        return directory.stat().st_ino == cgroup_id and bool((directory / "cgroup.procs").read_text().strip())
    except OSError:
        return False


def directories(mount: Path, ids: set[int]) -> dict[int, Path]:
    """Where the control groups of these ids are, as far as they are."""
    found = {}
    for directory, _, _ in os.walk(mount):
        inode = os.stat(directory).st_ino
        if inode in ids:
            found[inode] = Path(directory)
    return found
