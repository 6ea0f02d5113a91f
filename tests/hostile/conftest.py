"""One mesh for all hostile peers of a run, and the ledger of what was refused.

A test about bad input notes area, rule, input and answer; with --write-bad-input PATH what passed becomes a report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.arena import Arena, arena

Row = tuple[str, str, str, str]
Note = Callable[[str, str, str, str], None]
_NAME = "bad input"
_LEDGER = pytest.StashKey[dict[Row, None]]()
_HEAD = """# Bad input

Every row is a rule that was broken at the running mesh: by its command line, its control plane, its agents and its
ztunnels as they run in a lab. Each was answered as the row says, nothing changed, and a bystander's old connection and
a new one went on. Written by `pytest tests/hostile --write-bad-input PATH`, from rows that passed.
"""


@pytest.fixture(scope="session")
def place() -> Iterator[Arena]:
    with arena("arena") as made:
        yield made


@pytest.fixture
def bystander(place: Arena) -> Iterator[None]:
    """Whatever the test does, the bystander goes on."""
    yield
    place.unharmed()


@pytest.fixture
def unchanged(place: Arena) -> Iterator[None]:
    """Whatever the test does, no object changes."""
    revision = (place.lab.names.objects / "objects" / ".revision").read_text()
    yield
    assert (place.lab.names.objects / "objects" / ".revision").read_text() == revision


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Note:
    """note(area, rule, input, answer): for the report."""

    def write(area: str, rule: str, given: str, answer: str) -> None:
        record_property(_NAME, (area, rule, given, answer))

    return write


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("ambient").addoption("--write-bad-input", metavar="PATH", help="write the report of refused input")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEDGER] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Iterator[None]:  # the wrapper's result passes through
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.when == "call" and report.passed:
        for name, value in report.user_properties:
            if name == _NAME:
                item.config.stash[_LEDGER][value] = None  # type: ignore[index]
    return report  # type: ignore[return-value]


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--write-bad-input")
    if target:
        Path(target).write_text(_report(list(session.config.stash[_LEDGER])))


def _report(rows: list[Row]) -> str:
    areas = Counter(area for area, _, _, _ in rows)
    lines = [_HEAD, f"{len(rows)} rules: " + ", ".join(f"{area} {count}" for area, count in areas.items()) + ".", ""]
    for area in areas:
        lines += [f"## {area}", "", "| rule | input | answer |", "|---|---|---|"]
        lines += [
            f"| {_cell(rule)} | {_cell(given)} | {_cell(answer)} |" for at, rule, given, answer in rows if at == area
        ]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text).replace("|", "\\|").replace("`", "'")
    return plain if len(plain) < 160 else plain[:157] + "..."
