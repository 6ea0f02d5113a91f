"""Log lines of the director in Istio's two formats, plain (tab separated) and JSON (interop 7.7), and their filter."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from ambient.errors import InvalidInput
from ztunnel.telemetry.access_log import one_line
from ztunnel.telemetry.log_filter import parse_filter

_NUMBERS: Final = (5, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL + 1)
"""Python's numbers of LEVELS."""
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
        return f"{stamp}\t{level}\t{record.name}\t{one_line(message)}\t"


class Logs:
    """Every log of this process, on stderr; and the filter of /logging. `style`: plain or json."""

    def __init__(self, style: str, level: str) -> None:
        self._first = self.filter = parse_filter(level)
        self._handler = logging.StreamHandler(sys.stderr)
        self._handler.setFormatter(Formatter(style))
        self._handler.addFilter(self.passes)

    def begin(self) -> None:
        """Take over the root logger."""
        logging.getLogger().handlers[:] = [self._handler]
        logging.getLogger("asyncio").setLevel(logging.WARNING)
        self._apply()

    def passes(self, record: logging.LogRecord) -> bool:
        """The filter lets this record through."""
        return record.levelno >= _NUMBERS[self.filter.threshold(record.name)]

    def change(self, level: str, *, reset: bool) -> bool:
        """Append clauses to the filter, `reset`: to that of the start; False: they make no sense, nothing changed."""
        try:
            base = self._first if reset else self.filter
            self.filter = base.and_then(parse_filter(level)) if level else base
        except InvalidInput:
            return False
        self._apply()
        return True

    def _apply(self) -> None:
        logging.getLogger().setLevel(_NUMBERS[self.filter.lowest])
