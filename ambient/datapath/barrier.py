"""Barriers for whoever shares memory or programs with the kernel: membarrier(2).

Python cannot order its own reads of a mapping; on arm64 the processor may do a later one first. Nor can it know by
itself when the last packet has left a program that was told something new.
"""

from __future__ import annotations

import ctypes
import os
import platform
import time
from typing import Final

from ambient.errors import KernelError

_SYSCALL: Final = {"x86_64": 324, "aarch64": 283}
_GLOBAL: Final = 1 << 0
"""MEMBARRIER_CMD_GLOBAL: since 4.16 a grace period of RCU (kernel/sched/membarrier.c); refused on nohz_full."""
_LONGEST: Final = 1.0
"""Seconds: no packet is that long on its way through programs and look-ups."""
_EXPEDITED: Final = 1 << 3
"""MEMBARRIER_CMD_PRIVATE_EXPEDITED: a full barrier on every processor that runs a thread of this process."""
_REGISTER: Final = 1 << 4
"""MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED."""


class Barrier:
    """Call it: what was read or written before is before what is read or written after."""

    __slots__ = ("_call",)

    def __init__(self) -> None:
        """Raises KernelError where the kernel has none (it is as old as 4.14)."""
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._run(_REGISTER)

    def __call__(self) -> None:
        self._run(_EXPEDITED)

    def _run(self, command: int) -> None:
        if self._call(_SYSCALL[platform.machine()], command, 0, 0) < 0:
            raise KernelError("no memory barrier", "membarrier", os.strerror(ctypes.get_errno()))


def grace_period() -> None:
    """Every packet that was in a program when this began has been through it and the look-up that follows."""
    if ctypes.CDLL(None, use_errno=True).syscall(_SYSCALL[platform.machine()], _GLOBAL, 0, 0) < 0:
        time.sleep(_LONGEST)
