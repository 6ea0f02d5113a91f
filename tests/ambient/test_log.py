"""Log lines: one per event whatever others put into them, and no more than are useful."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ambient.log import LogLimit, set_up_logging

SAY = """
import logging, sys
from ambient.log import log_lines
log_lines(sys.argv[1])
logging.getLogger("one.two").info("some text")
logging.getLogger("one.two").warning("more")
"""
LINE = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (.*)"


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("form", ["plain", "json"])
def test_what_others_sent_cannot_break_a_line(capsys: pytest.CaptureFixture[str], form: str) -> None:
    set_up_logging(form, "info")
    logging.getLogger("ambient.test").info("peer said %s", "a\nINFO forged\x1b[31m")
    (line,) = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line


def test_json_lines_have_fixed_keys(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("json", "info")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("ambient.test").exception("failed")
    entry = json.loads(capsys.readouterr().err)
    assert list(entry) == ["time", "level", "scope", "msg", "error"]
    assert entry["level"] == "error"
    assert "ValueError: broken" in entry["error"]


def test_a_traceback_follows_its_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("plain", "info")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("ambient.test").exception("failed")
    written = capsys.readouterr().err
    assert written.splitlines()[0].endswith("\terror\tambient.test\tfailed")
    assert "ValueError: broken" in written


def test_the_level_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("plain", "warning")
    logging.getLogger("ambient.test").info("quiet")
    assert capsys.readouterr().err == ""


def test_a_flood_is_cut_and_counted() -> None:
    limit = LogLimit(3)
    assert [limit.allows(5.0 + n / 10) for n in range(6)] == [True, True, True, False, False, False]
    assert limit.allows(6.0)
    assert limit.note() == " (3 more like it)"
    assert limit.note() == ""


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
