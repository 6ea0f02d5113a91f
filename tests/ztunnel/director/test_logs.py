"""Log lines in Istio's two formats, and the filter of /logging."""

from __future__ import annotations

import json
import logging
import re

from ztunnel.director.logs import Formatter, Logs


def record(level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("director", level, "f", 1, "hello %s", ("you",), None)


def test_plain_lines_are_tab_separated_with_microseconds() -> None:
    line = Formatter("plain").format(record())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\twarn\tdirector\thello you\t", line)


def test_json_lines_have_istios_keys() -> None:
    row = json.loads(Formatter("json").format(record(logging.ERROR)))
    assert (row["level"], row["scope"], row["message"]) == ("error", "director", "hello you")


def test_an_exception_stays_on_its_line() -> None:
    one = record()
    try:
        raise LookupError("gone")
    except LookupError as error:
        one.exc_info = (type(error), error, error.__traceback__)
    assert "LookupError: gone" in Formatter("plain").format(one)
    assert "\n" not in Formatter("plain").format(one)


def test_what_others_say_begins_no_line_of_its_own() -> None:
    one = logging.LogRecord("discovery", logging.WARNING, "f", 1, "refused %s", ("a\n2026-01-01\tinfo\tx",), None)
    line = Formatter("plain").format(one)
    assert "\n" not in line
    assert line.count("\t") == 4
    assert line.endswith("\trefused a\\n2026-01-01\\tinfo\\tx\t")


def test_a_reset_goes_back_to_the_level_of_the_start() -> None:
    log = Logs("plain", "warn,dns=debug")
    assert log.change("debug", reset=False)
    assert str(log.filter) == "dns=debug,debug"
    assert log.change("", reset=True)
    assert str(log.filter) == "dns=debug,warn"
    assert not log.change("what", reset=False)


def test_records_pass_by_the_name_of_their_logger() -> None:
    log = Logs("plain", "error,director=info")
    assert log.passes(record(logging.INFO))
    assert not log.passes(record(logging.DEBUG))
    other = record()
    other.name = "inpod"
    assert not log.passes(other)
    other.levelno = logging.ERROR
    assert log.passes(other)
