"""A process we started, or found running after our own restart: wait for it, signal it, never mix it up.

Known by pid *and* start time, watched through a pidfd, so that a recycled pid is never taken for ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient.lab.settings import read_json, write_atomically


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells a process from any other. `started` is field 22 of /proc/<pid>/stat (clock ticks since boot)."""

    pid: int
    started: int

    def save(self, path: Path, **more: Any) -> None:
        write_atomically(path, json.dumps({"pid": self.pid, "started": self.started, **more}))


def start_time(pid: int) -> int | None:
    """None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def alive(pid: int) -> bool:
    """Running, that is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def saved_mark(path: Path) -> Mark | None:
    """The mark in a file, if the process it speaks of still runs."""
    raw = read_json(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("pid"), int):
        return None
    mark = Mark(raw["pid"], raw.get("started", 0))
    return mark if start_time(mark.pid) == mark.started and alive(mark.pid) else None


class Process:
    """`pid` runs until `wait()` returns. Of an adopted process no exit code can be known (None)."""

    def __init__(self, mark: Mark, pidfd: int, popen: subprocess.Popen[bytes] | None) -> None:
        self.mark = mark
        self._pidfd = pidfd
        self._popen = popen
        self._ended: asyncio.Future[int | None] | None = None

    @property
    def pid(self) -> int:
        return self.mark.pid

    async def wait(self) -> int | None:
        """The exit code (128 + n for signal n), None when nobody can know it. May be awaited by several tasks."""
        loop = asyncio.get_running_loop()
        if self._ended is None:
            self._ended = loop.create_future()
            loop.add_reader(self._pidfd, self._gone, loop)
        return await asyncio.shield(self._ended)

    def _gone(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        code: int | None = None
        if self._popen is not None:
            code = self._popen.wait()
            code = code if code >= 0 else 128 - code
        assert self._ended is not None
        self._ended.set_result(code)

    def signal(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended."""
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


def start(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Process:
    """Start in a session of its own, output appended to `log`, nothing on stdin."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as output:
        popen = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    return Process(Mark(popen.pid, start_time(popen.pid) or 0), os.pidfd_open(popen.pid), popen)


def adopt(mark: Mark) -> Process | None:
    """The process again, started by our predecessor; None when it ended meanwhile."""
    try:
        pidfd = os.pidfd_open(mark.pid)
    except ProcessLookupError:
        return None
    if start_time(mark.pid) != mark.started:
        os.close(pidfd)
        return None
    return Process(mark, pidfd, None)
