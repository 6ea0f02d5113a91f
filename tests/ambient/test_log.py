"""Lines of a log, as a process of its own writes them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

SAY = """
import logging, sys
from ambient.log import log_lines
log_lines(sys.argv[1])
logging.getLogger("one.two").info("some text")
logging.getLogger("one.two").warning("more")
"""
LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (.*)"


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        ("info", ["INFO one.two: some text", "WARNING one.two: more"]),
        ("warn", ["WARNING one.two: more"]),
        ("WARN", ["WARNING one.two: more"]),
        ("error", []),
    ],
)
def test_what_is_as_grave_as_the_level_is_written_on_standard_error(level: str, lines: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", SAY, level], check=True, capture_output=True, text=True)
    assert done.stdout == ""
    assert re.findall(LINE, done.stderr) == lines
