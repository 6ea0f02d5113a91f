"""`./dev campaign restart`: planned restarts in a loop under load, recorded in docs/reports/restart.{json,md}."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.campaign.load import ROOT, say, write
from tests.support.journey import journey
from tests.support.load import peers
from tests.support.load_restarts import restarts

RULES: Final = (
    "Every new connection must succeed, every conversation shorter than the drain time must come to its own end, and\n"
    "one that would go on for ever must be heard for the drain time after its ztunnel was told to end."
)
REPORT: Final = ROOT / "docs" / "reports" / "restart.json"


def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing was broken."""
    parser = argparse.ArgumentParser(prog="./dev campaign restart", description=__doc__)
    parser.add_argument("--connections", type=int, default=60_000, metavar="N", help="at least (default 60000)")
    parser.add_argument("--rate", type=float, default=400.0, metavar="N", help="opened per second (default 400)")
    parser.add_argument("--report", type=Path, default=REPORT, metavar="FILE", help="default docs/reports/restart.json")
    given = parser.parse_args(argv)
    with journey("restart") as mesh, peers(mesh):
        scene = restarts(mesh, given.connections, given.rate)
    write(given.report, [scene], "restart", RULES)
    say(given.report.with_suffix(".md").read_text())
    return 1 if scene.broken else 0


if __name__ == "__main__":
    sys.exit(main())
