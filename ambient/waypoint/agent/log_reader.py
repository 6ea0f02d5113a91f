"""The thread between Envoy's standard output and ours: every line is counted, and goes on into the access log.

A thread of its own, so that whoever does not take our log holds up neither certificates nor discovery. What nobody
takes for `PATIENCE_S` is dropped, and counted.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterable, Iterator
from typing import Final

from ambient.errors import InvalidInput
from ambient.waypoint.agent.lines import logged, read, signal
from ambient.waypoint.agent.traffic import Traffic

PATIENCE_S: Final = 2.0
_READ: Final = 256 * 1024
_LONGEST: Final = 64 * 1024
"""Bytes of a line; Envoy's own limit for headers is 60 KiB."""
_PIECE: Final = 4096
"""What a pipe takes whole, or not at all (POSIX: PIPE_BUF is at least 512, on Linux it is this)."""


class LogReader:
    """`source` and `sink`: descriptors; the source is closed at its end."""

    def __init__(self, traffic: Traffic, sink: int = 1, patience_s: float = PATIENCE_S) -> None:
        self._traffic = traffic
        self._sink = sink
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._signals: dict[str, int] = {}
        self._unread = 0
        self._dropped = 0
        self._takes = True

    def start(self, source: int) -> threading.Thread:
        """Read until the other end is closed."""
        thread = threading.Thread(target=self._run, args=(source,), name="access log", daemon=True)
        thread.start()
        return thread

    def exposition(self) -> bytes:
        """All metrics as text."""
        with self._lock:
            found = [*self._traffic.render(), *self._own()]
        return "".join(found).encode()

    def _own(self) -> Iterator[str]:
        yield "# TYPE ambient_waypoint_security_signals_total counter\n"
        for name, count in sorted(self._signals.items()):
            yield f'ambient_waypoint_security_signals_total{{signal="{name}"}} {count}\n'
        yield "# TYPE ambient_waypoint_log_lines_unread_total counter\n"
        yield f"ambient_waypoint_log_lines_unread_total {self._unread}\n"
        yield "# TYPE ambient_waypoint_log_lines_dropped_total counter\n"
        yield f"ambient_waypoint_log_lines_dropped_total {self._dropped}\n"

    def _run(self, source: int) -> None:
        rest = b""
        with open(source, "rb", buffering=0) as stream:
            while data := stream.read(_READ):
                *whole, rest = (rest + data).split(b"\n")
                if len(rest) > _LONGEST:
                    whole, rest = [*whole, rest], b""
                self._pass_on(whole)
            self._pass_on([rest])

    def _pass_on(self, lines: Iterable[bytes]) -> None:
        with self._lock:
            told = [self._take(one) for one in lines if one]
        self._write([one for one in told if one])

    def _take(self, data: bytes) -> bytes:
        """Count a line; what of it is logged."""
        try:
            line = read(data)
        except InvalidInput:
            self._unread += 1
            return data
        self._traffic.take(line)
        told = signal(line)
        if told:
            self._signals[told] = self._signals.get(told, 0) + 1
        return logged(data, line)

    def _write(self, lines: list[bytes]) -> None:
        """What is not taken in time is dropped by whole lines; only of one beyond `_PIECE` a part may be missing."""
        batch, count = b"", 0
        for line in lines:
            if batch and len(batch) + len(line) >= _PIECE:
                self._put(batch, count)
                batch, count = b"", 0
            batch, count = batch + line + b"\n", count + 1
        if batch:
            self._put(batch, count)

    def _put(self, data: bytes, count: int) -> None:
        for start in range(0, len(data), _PIECE):
            self._takes = self._writable(self._patience_s if self._takes else 0) and self._wrote(
                data[start : start + _PIECE]
            )
            if not self._takes:
                with self._lock:
                    self._dropped += count
                return

    def _wrote(self, data: bytes) -> bool:
        """False where a disk is full, or nobody is there any more: no reason to stop counting."""
        try:
            os.write(self._sink, data)
        except OSError:
            return False
        return True

    def _writable(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._sink, select.POLLOUT)
        return any(event & select.POLLOUT for _, event in poll.poll(timeout_s * 1000))
