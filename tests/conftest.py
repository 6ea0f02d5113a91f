"""House rules of every run: counts of tests are proven, skips carry proof, properties hold at any speed."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.features import unproven
from ztunnel import compiled

COUNTS = Path(__file__).with_name("counts.json")
INTERPRETED_ONLY = (
    "tests/ztunnel/proxy/test_backlog.py",
    "tests/ztunnel/proxy/test_poller.py::test_of_sockets_that_nobody_reads",
    "tests/ztunnel/proxy/test_socket_end.py",
    "tests/ztunnel/proxy/test_relay.py::test_sabotage_when_nobody_looks",
)
"""Tests that derive from a class or replace a method, which compiled classes do not allow."""


# How long an example takes says more of the machine than of what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ambient")
    group.addoption("--prove-counts", metavar="KIND", help="fail unless the count in counts.json is collected")
    group.addoption("--compiled", action="store_true", help="run what a worker runs where there is a compiler")
    group.addoption("--write-counts", metavar="KIND", help="write the number of collected tests into counts.json")


def pytest_configure(config: pytest.Config) -> None:
    # Who is told to end takes down what it has put up: namespaces, pins and labs outlive a process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if config.getoption("--compiled"):
        form = compiled.use({})
        if not form.compiled:
            raise pytest.UsageError(f"--compiled: {form}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--compiled"):
        left = [item for item in items if item.nodeid.startswith(INTERPRETED_ONLY)]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


def pytest_collection_finish(session: pytest.Session) -> None:
    kind = session.config.getoption("--write-counts")
    if kind:
        counts = _counts()
        counts[kind] = len(session.items)
        COUNTS.write_text(json.dumps(counts, indent=2, sort_keys=True) + "\n")
    kind = session.config.getoption("--prove-counts")
    if kind and len(session.items) < _counts().get(kind, 1):
        raise pytest.UsageError(
            f"{len(session.items)} {kind} tests were collected, {COUNTS.name} says {_counts().get(kind)}: "
            "if that is meant, run ./dev counts and commit the file"
        )


def _counts() -> dict[str, int]:
    counts: dict[str, int] = json.loads(COUNTS.read_text()) if COUNTS.exists() else {}
    return counts


def _demand_proof(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    complaint = unproven(reason)
    if complaint:
        report.outcome = "failed"
        report.longrepr = complaint


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _demand_proof(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _demand_proof(report)
    return report
