"""cgroup v2 folders: where each part of a lab runs, and the only sure way to end all of it.

Works in the pure v2 and in the hybrid layout; no controller is needed. A machine without any cgroup v2 mount gets
one under /run/ambient, removed with the last lab.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ambient.errors import KernelError
from ambient.lab.run import run

OWN_MOUNT: Final = Path("/run/ambient/cgroup2")
_LOOK_S: Final = 0.05


def find_mount(mounts: str) -> Path | None:
    """The first cgroup2 mount point in the text of /proc/mounts."""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[2] == "cgroup2":
            return Path(fields[1].encode().decode("unicode_escape"))
    return None


def mount_point(*, make: bool = False) -> Path | None:
    """Where cgroup v2 is mounted. `make`: mount it when it is nowhere; raises KernelError when that fails."""
    found = find_mount(Path("/proc/mounts").read_text())
    if found is None and make:
        OWN_MOUNT.mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "cgroup2", "cgroup2", str(OWN_MOUNT)])
        return OWN_MOUNT
    return found


def unmount_own() -> None:
    """Undo what `mount_point(make=True)` did, if it did."""
    if OWN_MOUNT.is_dir():
        if find_mount(Path("/proc/mounts").read_text()) == OWN_MOUNT:
            run(["umount", str(OWN_MOUNT)])
        OWN_MOUNT.rmdir()


def place(name: str) -> Path:
    """Where the folder of a cgroup is, or would be; raises KernelError without cgroup v2."""
    mounted = mount_point(make=True)
    if mounted is None:
        raise KernelError("no cgroup v2", "/proc/mounts", "mount it: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
    return mounted / name


def path(name: str) -> Path:
    """The folder of a cgroup, made if needed; raises KernelError without cgroup v2."""
    folder = place(name)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def pids(folder: Path) -> list[int]:
    """Processes in the cgroup and everything below it; [] when it does not exist."""
    found: list[int] = []
    for directory in _subtree(folder):
        with suppress(FileNotFoundError, OSError):
            found += [int(pid) for pid in (directory / "cgroup.procs").read_text().split()]
    return found


def own_pids(folder: Path) -> list[int]:
    """Processes in this cgroup itself."""
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def signal_all(folder: Path, number: signal.Signals) -> None:
    """Send a signal to every process below."""
    for pid in pids(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def signal_heads(folder: Path, number: signal.Signals) -> list[int]:
    """Send a signal to those below that no other of them has started, as whoever runs containers does; their pids."""
    members = pids(folder)
    heads = [pid for pid in members if _parent(pid) not in members]
    for pid in heads:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return heads


def _parent(pid: int) -> int:
    """proc_pid_stat(5); 0 when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def wait_gone(folder: Path, members: Collection[int], timeout_s: float) -> None:
    """Until none of these is left in the cgroup and below, or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not set(members).isdisjoint(pids(folder)) and time.monotonic() < deadline:
        _wait_event(folder, min(_LOOK_S, max(0.0, deadline - time.monotonic())))


def kill(folder: Path, *, timeout_s: float = 60) -> None:
    """SIGKILL everything below and wait until it is gone; raises KernelError when it does not go."""
    deadline = time.monotonic() + timeout_s
    while folder.is_dir() and (left := pids(folder)):
        if time.monotonic() > deadline:
            raise KernelError("processes do not end", str(folder), f"pids {left}")
        try:
            (folder / "cgroup.kill").write_text("1")
        except OSError:  # before 5.14
            signal_all(folder, signal.SIGKILL)
        _wait_event(folder, min(0.5, max(0.0, deadline - time.monotonic())))


def remove(folder: Path, *, timeout_s: float = 60) -> None:
    """Kill everything below and remove the folders; nothing happens when it does not exist.

    Raises KernelError when something does not go."""
    deadline = time.monotonic() + timeout_s
    while folder.is_dir():
        kill(folder, timeout_s=timeout_s)
        busy = False
        for directory in sorted(_subtree(folder), key=lambda d: len(d.parts), reverse=True):
            try:
                directory.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise KernelError("cannot remove a cgroup", str(directory), os.strerror(error.errno or 0)) from None
                busy = True
        if busy:
            _wait_event(folder, 0.05)


def _subtree(folder: Path) -> Iterator[Path]:
    for directory, _, _ in os.walk(folder):
        yield Path(directory)


def _wait_event(folder: Path, timeout_s: float) -> None:
    """Until cgroup.events says that nobody is left, or the time is over."""
    with suppress(FileNotFoundError), open(folder / "cgroup.events", encoding="ascii") as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI | select.POLLERR)
        if "populated 1" in events.read():
            poll.poll(timeout_s * 1000)
