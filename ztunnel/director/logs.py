"""Log lines of the director in Istio's two formats: plain (tab separated) and JSON (interop 7.7)."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

LEVELS: Final = {
    "off": logging.CRITICAL + 1,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": logging.DEBUG - 5,
}
_NAMES: Final = {logging.CRITICAL: "error", logging.ERROR: "error", logging.WARNING: "warn", logging.INFO: "info"}


class Formatter(logging.Formatter):
    """One record as one line."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        level = _NAMES.get(record.levelno, "debug")
        message = record.getMessage()
        if record.exc_info:
            message += " " + self.formatException(record.exc_info).replace("\n", " | ")
        if self._json:
            return json.dumps({"level": level, "time": stamp, "scope": record.name, "message": message})
        return f"{stamp}\t{level}\t{record.name}\t{message}\t"


def set_up(style: str, level: str) -> None:
    """Send every log of this process to stderr in `style` (plain or json), from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(style))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS[level])
    logging.getLogger("asyncio").setLevel(logging.WARNING)


class LogFilter:
    """The filter text of /logging: changes are appended, `reset` starts from the level given at start."""

    def __init__(self, level: str) -> None:
        self._first = level
        self.text = level

    @property
    def level(self) -> str:
        """The last plain level in the filter: the one that counts for us and for the workers."""
        levels = [part for part in self.text.split(",") if part in LEVELS]
        return levels[-1] if levels else self._first

    def change(self, level: str, *, reset: bool) -> bool:
        """Apply one change; False: it is no filter (nothing changed). Accepts `info` and `module=debug,...`."""
        parts = [part.strip() for part in level.split(",") if part.strip()]
        for part in parts:
            name, equals, value = part.partition("=")
            if (value if equals else name) not in LEVELS or not name:
                return False
        kept = [self._first] if reset else self.text.split(",")
        self.text = ",".join(dict.fromkeys([*(p for p in kept if p not in parts), *parts]))
        return True
