"""`down`: nothing of a lab stays, whatever died before and whatever state is missing.

Works from names: the cgroup tree (which holds every process of the lab), namespaces by prefix, processes that sit in
them, pins, files. Each step is safe to repeat, and so is the whole.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from ambient.errors import KernelError
from ambient.lab import cgroup, network
from ambient.lab.lab import all_labs_locked, remove_pins, require_root
from ambient.lab.names import BPFFS, LABS, Names

_END_S: Final = 10.0
_GONE_S: Final = 60.0


def down(names: Names) -> bool:
    """Remove the lab; False when there was nothing of it. Raises KernelError when something does not go."""
    require_root()
    with all_labs_locked(), _settled(names):
        found = remains(names)
        _end_processes(names)
        for netns in _namespaces(names):
            network.remove(netns)
        remove_pins(names.bpffs)
        shutil.rmtree(names.folder, ignore_errors=True)
        if names.folder.exists():
            shutil.rmtree(names.folder)
        _remove_empty_parents()
    return bool(found)


@contextmanager
def _settled(names: Names) -> Iterator[None]:
    """Nobody changes the lab's objects meanwhile; whoever waits for that finds the lab gone.

    A command that holds the lock for long is not waited for: `down` must always work.
    """
    try:
        descriptor = os.open(names.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield
        return
    try:
        deadline = time.monotonic() + _END_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def remains(names: Names) -> list[str]:
    """All that exists of the lab, one line each: what a test looks at after `down`."""
    left = [f"namespace {netns}" for netns in _namespaces(names)]
    mounted = cgroup.mount_point()
    if mounted is not None and (mounted / names.cgroup()).exists():
        left.append(f"cgroup {mounted / names.cgroup()}")
        left += [f"process {pid}" for pid in cgroup.pids(mounted / names.cgroup())]
    left += [f"process {pid}" for pid in _inhabitants(_namespaces(names))]
    left += [f"{what} {path}" for what, path in (("pins", names.bpffs), ("files", names.folder)) if path.exists()]
    return left


def _namespaces(names: Names) -> list[str]:
    return [netns for netns in network.list_names() if names.owns(netns)]


def _inhabitants(namespaces: Iterable[str]) -> list[int]:
    """Processes in any of these network namespaces, wherever their cgroup is."""
    inodes = {inode for netns in namespaces if (inode := network.inode(netns)) is not None}
    found = []
    for entry in os.scandir("/proc") if inodes else ():
        if entry.name.isdigit():
            with suppress(OSError):
                if os.stat(f"/proc/{entry.name}/ns/net").st_ino in inodes:
                    found.append(int(entry.name))
    return found


def _end_processes(names: Names) -> None:
    mounted = cgroup.mount_point()
    if mounted is not None:
        cgroup.remove(mounted / names.cgroup())
    deadline = time.monotonic() + _GONE_S
    while strays := _inhabitants(_namespaces(names)):
        if time.monotonic() > deadline:
            raise KernelError("processes do not end", names.prefix, f"pids {strays}")
        for pid in strays:
            _kill_and_wait(pid, deadline)


def _kill_and_wait(pid: int, deadline: float) -> None:
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(pidfd)


def _remove_empty_parents() -> None:
    for folder in (BPFFS, LABS):
        with suppress(OSError):
            folder.rmdir()
    if not LABS.exists():
        with suppress(KernelError):
            cgroup.unmount_own()
        with suppress(OSError):
            LABS.parent.rmdir()
