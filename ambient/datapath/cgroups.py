"""Cgroup v2 identities: the number by which the kernel knows whose socket sent a packet.

A socket keeps the cgroup that its process had when it was made; moving the process later does not move its sockets.
"""

from __future__ import annotations

from pathlib import Path

from ambient.errors import KernelError, Unavailable


def mount_point() -> Path | None:
    """Where cgroup v2 is mounted; None where it is not (then a mark alone decides who is ztunnel)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    return None


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
