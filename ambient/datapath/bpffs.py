"""The file system that pins live on: there before anything is pinned, and on the node when we are in a container of it.

What is pinned on a mount of the container's own is gone with the container, and every pod's capture with it.
`python -m ambient.datapath.bpffs` mounts it on the node, as a process of its own, since only one without threads may
change to another mount namespace. That takes the node's process namespace, SYS_ADMIN and SYS_CHROOT.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from ambient.errors import KernelError

_ROOT: Final = Path("/sys/fs/bpf")
_NODE: Final = "/proc/1/ns/mnt"
_MAGIC: Final = 0xCAFE4A11
_CLONE_NEWNS: Final = 0x00020000


def ensure_bpffs(path: Path) -> None:
    """Mount bpffs on /sys/fs/bpf if `path` lies below it and nothing is mounted there; out of a container, on the node.

    Raises KernelError when `path` is on another kind of file system and so cannot hold pins.
    """
    if not _holds_pins(path) and _ROOT in (path, *path.parents):
        if _on_a_node():
            _mount_on_the_node()
        else:
            error = _mount()
            if error:
                raise KernelError("cannot mount bpffs", str(_ROOT), error)
    if not _holds_pins(path):
        raise KernelError("not a bpffs", str(path), "pins can only live on a mounted bpffs, usually /sys/fs/bpf")


def _on_a_node() -> bool:
    """The first process has other mounts than this one; False where that may not be known."""
    try:
        return os.stat(_NODE).st_ino != os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        return False


def _mount_on_the_node() -> None:
    ours = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "ambient.datapath.bpffs"],
        env={**os.environ, "PYTHONPATH": f"{ours}:{os.environ.get('PYTHONPATH', '')}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise KernelError("cannot mount bpffs on the node", str(_ROOT), done.stderr.strip()[-500:])
    if not _holds_pins(_ROOT):
        why = "it is mounted on the node and not seen here; the volume needs mountPropagation: HostToContainer"
        raise KernelError("no bpffs", str(_ROOT), why)


def _mount() -> str:
    """In the mount namespace of the caller; gives what went wrong."""
    libc = ctypes.CDLL(None, use_errno=True)
    return "" if libc.mount(b"bpf", os.fsencode(_ROOT), b"bpf", 0, None) == 0 else os.strerror(ctypes.get_errno())


def _holds_pins(path: Path) -> bool:
    """Whether `path`, or what there is of it, is on bpffs (statfs(2): a list of mounts also shows covered ones)."""
    existing = next(candidate for candidate in (path, *path.parents) if candidate.exists())
    answer = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.statfs(os.fsencode(existing), answer) == 0 and int.from_bytes(answer.raw[:4], sys.byteorder) == _MAGIC


def main() -> int:
    """0, or 1 with the reason on standard error."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(_NODE, os.O_RDONLY | os.O_CLOEXEC)
    if libc.setns(fd, _CLONE_NEWNS) != 0:
        error = f"cannot enter its mounts: {os.strerror(ctypes.get_errno())}"
    else:
        error = _mount()
    sys.stderr.write(error)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
