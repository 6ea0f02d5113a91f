"""`./dev campaign faults [--times N]`: every fault N times under load, recorded in docs/reports/faults.{json,md}.

One mesh bears them all, one after the other; one that breaks is recorded, thrown away and made anew.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ambient.errors import MeshError
from tests.support.campaign_record import keep
from tests.support.faults import CRASHES, STATE, Fault, deal
from tests.support.faults_clock import CLOCKS, shiftable_clocks
from tests.support.faults_node import SURROUNDINGS
from tests.support.journey import Journey, journey
from tests.support.survival import guarded

ROOT: Final = Path(__file__).resolve().parents[2]
REPORT: Final = ROOT / "docs" / "reports" / "faults.json"
FAULTS: Final = (*CRASHES, *STATE, *SURROUNDINGS)
_HEAD: Final = (
    *("fault", "times", "failures", "new connections", "of them failed"),
    *("worst gap, s", "back after, s (median)", "back after, s (worst)", "open connections that ended"),
)


@dataclass(slots=True)
class Row:
    """The record of one fault."""

    fault: str
    times: int = 0
    failures: int = 0
    tried: int = 0
    failed: int = 0
    held_ended: int = 0
    gaps_s: list[float] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def add(self, fault: Fault, mesh: Journey) -> None:
        """Deal the fault once more."""
        turn, self.times = self.times, self.times + 1
        try:
            verdict = deal(fault, mesh, turn)
        except (AssertionError, MeshError, OSError, subprocess.SubprocessError):
            self.failures += 1
            raise
        broken = fault.broken(verdict)
        self.failures += bool(broken)
        self.broken += broken
        self.tried += verdict.tried
        self.failed += verdict.failed
        self.held_ended += sum(map(bool, verdict.held.values()))
        self.gaps_s.append(round(verdict.worst_gap_s, 3))
        self.recoveries_s.append(round(verdict.recovery_s, 3))

    def cells(self) -> list[str]:
        """In the order of _HEAD."""
        gaps, back = self.gaps_s or [0.0], self.recoveries_s or [0.0]
        seconds = (max(gaps), statistics.median(back), max(back))
        counts = (self.times, self.failures, self.tried, self.failed)
        return [self.fault, *map(str, counts), *(f"{value:.2f}" for value in seconds), str(self.held_ended)]


class Bearer:
    """The mesh under test; `fresh` after it broke."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._stack = ExitStack()
        self._mesh: Journey | None = None

    def mesh(self) -> Journey:
        if self._mesh is None:
            self._mesh = self._stack.enter_context(journey("faults", env=self._env))
            self._stack.enter_context(guarded(self._mesh))
        return self._mesh

    def close(self) -> None:
        self._mesh = None
        self._stack.close()


def run(faults: Iterable[Fault], times: int, report: Path, rows: dict[str, Row], env: Mapping[str, str]) -> None:
    """Until each fault was dealt so often, in a mesh with this environment; the report is written after each blow."""
    bearer = Bearer(env)
    try:
        for fault in faults:
            row = rows.setdefault(fault.name, Row(fault.name))
            while row.times < times:
                try:
                    row.add(fault, bearer.mesh())
                except (AssertionError, MeshError, OSError, subprocess.SubprocessError) as error:
                    row.broken.append(f"{type(error).__name__}: {error}"[:600])
                    bearer.close()
                write(report, rows.values())
            say("  ".join(row.cells()))
            for line in row.broken:
                say(f"    {line}")
    finally:
        bearer.close()


def write(report: Path, rows: Iterable[Row]) -> None:
    """The JSON, and beside it the same as a table in Markdown."""
    rows = list(rows)
    keep(report, "rows", rows, lambda about: markdown(about, rows), load=round(os.getloadavg()[2], 1))


def markdown(about: dict[str, Any], rows: Sequence[Row]) -> str:
    lines = [
        "# Faults under load",
        "",
        f"`./dev campaign faults`, {about['date']}, commit {about['commit'][:12]}, Linux {about['kernel']}, "
        f"{about['cores']} cores,",
        f"15-minute load average {about['load']} with whatever else ran on the machine (times are to be read with it).",
        "Two nodes, STRICT and an ALLOW policy. Meanwhile 20 new connections a second (IPv4, IPv6, across nodes and on",
        "one), two open ones with checked bytes, two clients that may not get in, and a capture on both nodes' wires.",
        "A failure is any of: somebody let in who may not, bytes in clear, wrong bytes, an open connection cut that",
        'should go on, a new one refused where the table "what survives what" says that it works, not back in time.',
        "A repeated SYN (1 s) is in the gaps: what cannot be accepted at once is dropped, not refused.",
        "",
        "| " + " | ".join(_HEAD) + " |",
        "|" + "---|" * len(_HEAD),
        *("| " + " | ".join(row.cells()) + " |" for row in rows),
        "",
    ]
    for row in rows:
        lines += [f"- {row.fault}: {line.splitlines()[0]}" for line in row.broken]
    return "\n".join(lines).rstrip() + "\n"


def earlier(report: Path) -> dict[str, Row]:
    """What an interrupted run had found."""
    if not report.exists():
        return {}
    rows = [Row(**raw) for raw in json.loads(report.read_text())["rows"]]
    return {row.fault: row for row in rows}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """0 when no rule was broken."""
    parser = argparse.ArgumentParser(prog="./dev campaign faults", description=__doc__)
    parser.add_argument("--times", type=int, default=20, metavar="N", help="how often each fault (default 20)")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose name has this in it")
    parser.add_argument("--resume", action="store_true", help="go on with the report that is there")
    parser.add_argument("--report", type=Path, default=REPORT, metavar="FILE", help="default docs/reports/faults.json")
    given = parser.parse_args(argv)
    rows = earlier(given.report) if given.resume else {}
    run([fault for fault in FAULTS if given.only in fault.name], given.times, given.report, rows, {})
    with shiftable_clocks() as env:
        run([fault for fault in CLOCKS if given.only in fault.name], given.times, given.report, rows, env)
    say("\n" + given.report.with_suffix(".md").read_text())
    return 1 if any(row.failures for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
