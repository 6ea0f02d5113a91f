"""Log lines in Istio ztunnel's two forms (text with tabs, JSON) and the writer that never tears a line.

Lines of one loop turn leave in writes of at most PIPE_BUF octets, whole lines each, so that several workers can
share one pipe. A reader that is too slow costs lines (counted), never a connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from ambient.errors import InvalidInput
from ztunnel.telemetry.fields import Bare, Field, Item, Run
from ztunnel.telemetry.log_filter import RANKS, LogFilter, parse_filter

_ATOMIC: Final = 4_096
_QUEUE_LIMIT: Final = 1 << 20
_RETRY_S: Final = 0.05


def together(*fields: Field) -> Run:
    """These fields with their text form worked out once."""
    value = Run(fields)
    value.shown = _text_of(fields)
    return value


def flat(items: Iterable[Item]) -> Iterator[Field]:
    """Every field, those of runs as well."""
    for item in items:
        if isinstance(item, Run):
            yield from item
        else:
            yield item


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _time(now: float) -> str:
    seconds, micros = divmod(int(now * 1_000_000), 1_000_000)
    return f"{_second(seconds)}.{micros:06d}Z"


def _quote(text: str) -> str:
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return json.dumps(text, ensure_ascii=False)


def text_line(now: float, level: str, scope: str, message: str, fields: Sequence[Item]) -> str:
    """One line of the text form without line end."""
    return f"{_time(now)}\t{level}\t{scope}\t{one_line(message)}\t{_text_of(fields)}"


def _text_of(items: Sequence[Item]) -> str:
    shown = [item.shown if isinstance(item, Run) else f"{item[0]}={_show(item[1])}" for item in items if item]
    return " ".join(shown)


def _show(value: str | int) -> str | int:
    return value if isinstance(value, (Bare, int)) else _quote(value)


def one_line(message: str) -> str:
    """With what would begin another line, or another field, written out."""
    return message if message.isprintable() else _quote(message)[1:-1]


def json_line(now: float, level: str, scope: str, message: str, fields: Sequence[Item]) -> str:
    """One line of the JSON form without line end."""
    record: dict[str, str | int] = {"level": level, "time": _time(now), "scope": scope, "message": message}
    record.update(flat(fields))
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


class LogWriter:
    """Writes to `fd`. `soon` runs a function at the end of the loop turn, `later` after some seconds."""

    __slots__ = (
        "_clock",
        "_fd",
        "_filter",
        "_json",
        "_later",
        "_poll",
        "_queue",
        "_queued",
        "_scheduled",
        "_soon",
        "_thresholds",
        "lost",
    )

    def __init__(
        self,
        fd: int,
        *,
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fd = fd
        self._soon = soon
        self._later = later
        self._clock = clock
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._queue: list[bytes] = []
        self._queued = 0
        self._scheduled = False
        self._json = False
        self._filter = LogFilter()
        self._thresholds: dict[str, int] = {}
        """What the filter says of each scope that was asked for: there are a handful."""
        self.lost = 0

    def configure(self, log_format: str, level: str) -> None:
        """Set form ("json", else text) and filter."""
        self._json = log_format == "json"
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Set the filter that lines have to pass (ztunnel.telemetry.log_filter); nonsense leaves it as it is."""
        with contextlib.suppress(InvalidInput):
            self._filter = parse_filter(level)
            self._thresholds.clear()

    def enabled(self, level: str, scope: str) -> bool:
        """Lines of this level and scope are written."""
        least = self._thresholds.get(scope)
        if least is None:
            least = self._thresholds[scope] = self._filter.threshold(scope)
        return RANKS[level] >= least

    def log(self, level: str, scope: str, message: str, fields: Sequence[Item] | None = None) -> None:
        """Queue one line."""
        if not self.enabled(level, scope):
            return
        form = json_line if self._json else text_line
        line = form(self._clock(), level, scope, message, fields or []).encode("utf-8", "replace") + b"\n"
        if self._queued + len(line) > _QUEUE_LIMIT:
            self.lost += 1
            return
        self._queue.append(line)
        self._queued += len(line)
        if not self._scheduled:
            self._scheduled = True
            self._soon(self.flush)

    def flush(self) -> None:
        """Write what fits without waiting; try again later with the rest."""
        self._scheduled = False
        at = 0
        while at < len(self._queue):
            end, size = at, 0
            while end < len(self._queue) and (end == at or size + len(self._queue[end]) <= _ATOMIC):
                size += len(self._queue[end])
                end += 1
            if not self._poll.poll(0) or not self._write(b"".join(self._queue[at:end])):
                break
            self._queued -= size
            at = end
        del self._queue[:at]
        if self._queue and not self._scheduled:
            self._scheduled = True
            self._later(_RETRY_S, self.flush)

    def _write(self, chunk: bytes) -> bool:
        try:
            os.write(self._fd, chunk)
        except BlockingIOError:
            return False
        except OSError:
            self.lost += chunk.count(b"\n")
        return True
