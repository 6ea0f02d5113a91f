"""The tables of docs/compatibility.md: every fact has a test that is there, and every "no" says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
TABLES: Final = (ROOT / "docs" / "compatibility.md").read_text()
_LEAST_ROWS: Final = 550
_CELL: Final = re.compile(r"(?<!\\)\|")
_TEST: Final = re.compile(r"`(tests/[^`]+|\./dev (?:bench|campaign) [^`]+)`")
_NO: Final = re.compile(r"(?:no|not needed)\b[:; ]?(.*)", re.DOTALL)
_SHORTEST_REASON: Final = 12


def _rows(text: str) -> list[list[str]]:
    """Cells of every row of a fact: no headers, no rulers, no titles within a table."""
    rows = [_CELL.split(line.strip()[1:-1]) for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in row] for row in rows]
    return [row for row in rows if row[-1].lower() != "test" and set(row[0]) - set("-") and not row[0].startswith("**")]


def _there(test: str) -> bool:
    command, _, rest = test.partition(" ")
    if command != "./dev":
        return (ROOT / test).exists()
    kind, name = rest.split()[:2]
    folder = ROOT / ("bench" if kind == "bench" else "tests/campaign")
    return (folder / f"{name.replace('-', '_')}.py").is_file()


def _complaints(text: str) -> list[str]:
    headings = set(re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    found = []
    for row in _rows(text):
        fact, state, tests = row[0], row[-2], _TEST.findall(row[-1])
        no = _NO.match(state)
        if no is not None and len(no[1].strip()) < _SHORTEST_REASON:
            found.append(f"{fact}: no reason why not")
        if no is None and not tests and state.removeprefix("see ") not in headings:
            found.append(f"{fact}: no test")
        found += [f"{fact}: {test} is not there" for test in tests if not _there(test)]
    return found


def test_every_row_has_a_test_that_is_there_or_a_reason_why_not() -> None:
    assert len(_rows(TABLES)) >= _LEAST_ROWS
    assert _complaints(TABLES) == []


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("| a fact | yes | |", "no test"),
        ("| a fact | yes | - |", "no test"),
        ("| a fact | yes | `tests/no/such/test_file.py` |", "is not there"),
        ("| a fact | yes | `tests/test_house.py`, `tests/no/such/test_file.py` |", "is not there"),
        ("| a fact | yes | `./dev campaign daydream` |", "is not there"),
        ("| a fact | yes | by hand, once |", "no test"),
        ("| a fact | no | |", "no reason"),
        ("| a fact | no: later | |", "no reason"),
        ("| a fact | see Nowhere | |", "no test"),
    ],
)
def test_a_row_without_one_is_a_complaint(row: str, complaint: str) -> None:
    said = _complaints(f"| Fact | State | Test |\n|---|---|---|\n{row}\n")
    assert len(said) == 1, said
    assert complaint in said[0]


@pytest.mark.parametrize(
    "row",
    [
        "| a fact | yes | `tests/test_house.py` |",
        "| a fact | ours | `./dev bench waypoint-scale` |",
        "| a fact | no: nobody has ever asked for it | - |",
        "| **A title** | | |",
    ],
)
def test_a_row_that_is_as_it_should_be_is_none(row: str) -> None:
    assert _complaints(f"| Fact | State | Test |\n|---|---|---|\n{row}\n") == []
