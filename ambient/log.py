"""How our programs log on standard error: a line of time, level, logger and text each, plain or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time


class _Json(logging.Formatter):
    """Keys in the order people read them; text only, so nothing that is logged can break the line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        entry = {"time": moment, "level": record.levelname.lower(), "scope": record.name, "msg": record.getMessage()}
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class _Plain(logging.Formatter):
    """Control characters of what others sent us are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        message = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in record.getMessage())
        line = f"{moment}\t{record.levelname.lower()}\t{record.name}\t{message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class LogLimit:
    """At most `rate` lines a second of one kind, so that a flood of bad calls does not become a flood of log."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._second = -1
        self._written = 0
        self._left_out = 0

    def allows(self, now_s: float) -> bool:
        """Whether a line may be written at this time; one that may not is counted."""
        if int(now_s) != self._second:
            self._second, self._written = int(now_s), 0
        self._written += 1
        if self._written > self._rate:
            self._left_out += 1
            return False
        return True

    def note(self) -> str:
        """What to append to a line that is written: how many were left out before it."""
        count, self._left_out = self._left_out, 0
        return f" ({count} more like it)" if count else ""


def set_up_logging(form: str, level: str) -> None:
    """Replace the root logger's handlers; `form` is "plain" or "json", `level` a level of `logging` in lower case."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Plain())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def log_lines(level: str) -> None:
    """`level` as Istio's settings name it, in any case: error, warn, info, debug."""
    logging.basicConfig(
        level=level.upper().replace("WARN", "WARNING"),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
