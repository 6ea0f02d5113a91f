"""The first file system of a guest: an initramfs of busybox, the modules that the root needs, and a script.

The root of the guest is this machine's own, read through 9p and never written: an overlay in the guest's memory takes
what is written. So the guest has the same Python, packages and clone under the same names, and nothing is built for it.
"""

from __future__ import annotations

import lzma
import stat
from pathlib import Path
from typing import Final

from tests.support.kernel_packages import Unpacked

BUSYBOX: Final = Path("/bin/busybox")
RESULT: Final = Path("/run/result")
"""In the guest: the folder that it shares with the machine, writable."""
_MODULES: Final = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
_FOLDERS: Final = ("bin", "dev", "proc", "host", "top", "root", "modules")
_CONSOLE: Final = (5, 1)
_SHARED: Final = "trans=virtio,version=9p2000.L,msize=512000"
_INIT: Final = """#!/bin/busybox sh
set -e
b=/bin/busybox
trap '$b echo "the guest could not make its root"; $b poweroff -f' EXIT
for module in /modules/*; do $b insmod $module; done
$b mount -t proc proc /proc
$b mount -t 9p -o ro,cache=loose,{shared} root /host
$b mount -t tmpfs -o mode=755 top /top
$b mkdir /top/upper /top/work
$b mount -t overlay -o lowerdir=/host,upperdir=/top/upper,workdir=/top/work root /root
$b mount -t proc proc /root/proc
$b mount -t sysfs sys /root/sys
$b mount -t devtmpfs dev /root/dev
$b mkdir -p /root/dev/pts /root/dev/shm /root/lib/modules
$b mount -t devpts pts /root/dev/pts
$b mount -t tmpfs shm /root/dev/shm
$b mount -t tmpfs run /root/run
$b mount -t tmpfs modules /root/lib/modules
$b ln -s {base}/lib/modules/{release} /root/lib/modules/{release}
$b mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
$b mount -t bpf bpf /root/sys/fs/bpf
$b mkdir -p /root{result}
$b mount -t 9p -o cache=none,{shared} result /root{result}
$b ip link set lo up
trap - EXIT
exec $b chroot /root /bin/sh {result}/job
"""
"""The job takes this process's place: below whose root the kernel looks for the program that loads modules."""


class _Archive:
    """A cpio archive as the kernel reads it (Documentation/driver-api/early-userspace/buffer-format.rst, "newc")."""

    def __init__(self) -> None:
        self._octets = bytearray()
        self._inode = 0

    def add(self, name: str, mode: int, octets: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        spelt = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(octets), 0, 0, *device, len(spelt), 0)
        self._octets += b"070701" + b"".join(b"%08X" % field for field in fields) + spelt
        self._pad()
        self._octets += octets
        self._pad()

    def _pad(self) -> None:
        self._octets += bytes(-len(self._octets) % 4)

    def whole(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return bytes(self._octets)


def initramfs(kernel: Unpacked) -> bytes:
    """Raises Unavailable where the kernel lacks a module that the root needs."""
    archive = _Archive()
    for folder in _FOLDERS:
        archive.add(folder, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=_CONSOLE)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, BUSYBOX.read_bytes())
    for number, path in enumerate(kernel.modules_for(*_MODULES)):
        octets = path.read_bytes()
        archive.add(
            f"modules/{number:02}.ko", stat.S_IFREG | 0o644, lzma.decompress(octets) if path.suffix == ".xz" else octets
        )
    script = _INIT.format(base=kernel.base, release=kernel.release, result=RESULT, shared=_SHARED)
    archive.add("init", stat.S_IFREG | 0o755, script.encode())
    return archive.whole()
