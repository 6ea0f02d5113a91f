"""Wake-ups when something changes in a set of directories: dnotify (SIGIO) where it can be had, else polling.

A wake-up is only a hint; the caller compares and decides. One watch per process gets the signal; a second one, or
one outside the main thread, polls. inotify would need a foreign function call, dnotify is in the standard library.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

POLL_S: Final = 0.05
SAFETY_POLL_S: Final = 1.0
"""How often to look anyway while notifications work (some filesystems give none)."""

_EVENTS: Final = fcntl.DN_RENAME | fcntl.DN_CREATE | fcntl.DN_DELETE | fcntl.DN_MULTISHOT


class DirectoryWatch:
    """Calls `on_change` in the loop after something was renamed, created or deleted in a covered directory."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]) -> None:
        self._loop = loop
        self._descriptors: dict[Path, tuple[int, int]] = {}
        self._notified = False
        if signal.getsignal(signal.SIGIO) in (signal.SIG_DFL, signal.SIG_IGN):
            with suppress(RuntimeError, ValueError, NotImplementedError):
                loop.add_signal_handler(signal.SIGIO, on_change)
                self._notified = True

    @property
    def interval_s(self) -> float:
        """How long the caller may wait for a wake-up before it looks by itself."""
        return SAFETY_POLL_S if self._notified else POLL_S

    def cover(self, directories: Iterable[Path]) -> None:
        """Watch exactly these directories from now on; those that do not exist are left out."""
        if not self._notified:
            return
        wanted = set(directories)
        for gone in self._descriptors.keys() - wanted:
            os.close(self._descriptors.pop(gone)[0])
        for path in wanted:
            try:
                inode = path.stat().st_ino
            except OSError:
                continue
            if path in self._descriptors and self._descriptors[path][1] == inode:
                continue
            if path in self._descriptors:
                os.close(self._descriptors.pop(path)[0])
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.fcntl(descriptor, fcntl.F_NOTIFY, _EVENTS)
            except OSError:
                os.close(descriptor)
                self.close()
                return
            self._descriptors[path] = (descriptor, inode)

    def close(self) -> None:
        """Give everything back. The watch polls from then on."""
        for descriptor, _ in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
        if self._notified:
            self._notified = False
            self._loop.remove_signal_handler(signal.SIGIO)
            # A notification may still be on its way; the default action of SIGIO would end the process.
            signal.signal(signal.SIGIO, signal.SIG_IGN)
