"""How a program that runs on a machine logs: a line of time, level, logger and text each, on standard error."""

from __future__ import annotations

import logging
import sys


def log_lines(level: str) -> None:
    """`level` as Istio's settings name it, in any case: error, warn, info, debug."""
    logging.basicConfig(
        level=level.upper().replace("WARN", "WARNING"),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
