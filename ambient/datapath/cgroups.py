"""Cgroup v2 identities: the number by which the kernel knows whose socket sent a packet.

A socket keeps the cgroup that its process had when it was made; moving the process later does not move its sockets.
"""

from __future__ import annotations

from pathlib import Path

from ambient.errors import KernelError, Unavailable


def mount_point(proc: Path = Path("/proc")) -> Path | None:
    """Where cgroup v2 is mounted whole; None where it is not (then a mark alone decides who is ztunnel).

    A container often sees its own part only: then the node's mount is found through the node's first process.
    """
    own = _mounts(proc / "self/mountinfo")
    nodes = [(root, f"{proc}/1/root{path}") for root, path in _mounts(proc / "1/mountinfo")]
    whole = [path for root, path in (*own, *nodes) if root == "/"]
    return Path((*whole, *(path for _, path in own))[0]) if whole or own else None


def _mounts(mountinfo: Path) -> list[tuple[str, str]]:
    """(root, mount point) of every cgroup2 mount that this file shows, none when it cannot be read."""
    try:
        lines = mountinfo.read_text().splitlines()
    except OSError:
        return []
    entries = [line.split(" ") for line in lines]
    return [(fields[3], fields[4]) for fields in entries if fields[fields.index("-") + 1] == "cgroup2"]


def cgroup_id_of(directory: Path) -> int:
    """The id of the cgroup v2 at `directory`. Raises KernelError when it is not there."""
    try:
        if not (directory / "cgroup.procs").exists():
            raise KernelError("not a cgroup v2", str(directory), "it has no cgroup.procs")
        return directory.stat().st_ino
    except OSError as error:
        raise KernelError("cannot identify a cgroup", str(directory), str(error)) from error


def cgroup_id(pid: int) -> int | None:
    """The id of the cgroup v2 that a process is in now; None where cgroup v2 is not mounted.

    Raises Unavailable when the process is gone.
    """
    root = mount_point()
    if root is None:
        return None
    try:
        memberships = Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Unavailable("a process is gone", f"pid {pid}", str(error)) from error
    for line in memberships.splitlines():
        if line.startswith("0::"):
            return cgroup_id_of(root / line[3:].lstrip("/"))
    return None
