"""Logging of the control plane's process: one line per event on standard error, plain or JSON."""

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


def set_up_logging(form: str, level: str) -> None:
    """Replace the root logger's handlers; `form` is "plain" or "json", `level` a level of `logging` in lower case."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Plain())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
