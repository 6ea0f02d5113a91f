"""Entering namespaces by `setns(2)`. Synchronous only: the whole thread is in the other namespace meanwhile.

A thread that cannot come back would go on in the wrong namespace with everything it does; then the process aborts.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ambient.errors import KernelError

_CLONE_NEWNET: Final = 0x40000000
_CLONE_NEWCGROUP: Final = 0x02000000
# Looking the library up costs more than entering and leaving together.
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def _setns(fd: int, kind: int = _CLONE_NEWNET) -> None:
    if _LIBC.setns(fd, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def entered(netns_fd: int) -> Iterator[None]:
    """This thread is in the network namespace behind `netns_fd` for the time of the block; sockets made there stay.

    Never `await` inside. Raises KernelError when the namespace cannot be entered; aborts the process when it cannot
    be left.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            _setns(netns_fd)
        except OSError as error:
            raise KernelError("cannot enter a network namespace", f"descriptor {netns_fd}", str(error)) from error
        try:
            yield
        finally:
            try:
                _setns(home)
            except OSError as error:
                os.write(2, f"cannot return to the home network namespace ({error}): aborting\n".encode())
                os.abort()
    finally:
        os.close(home)


def join_cgroup_namespace(path: str) -> None:
    """From now on this thread, and those it starts, read control group paths as the processes of that namespace do
    (`path` is a /proc/<pid>/ns/cgroup). Raises KernelError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(fd, _CLONE_NEWCGROUP)
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError("cannot join a control group namespace", path, str(error)) from error
