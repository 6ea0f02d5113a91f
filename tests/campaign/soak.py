"""`./dev campaign soak`: a long mixed load while pods come and go, recorded in docs/reports/soak.{json,md}."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.campaign.load import ROOT, say, write
from tests.support.load_pods import many_pods
from tests.support.load_soak import PODS, SHORT_LIVED, soak

RULES: Final = (
    "Connections, transfers with resets among them and endless conversations from a pod of every node to all others,\n"
    "both families, pods that come, talk and go, certificates that live 60 s. No connection may fail, no conversation\n"
    "end, no part of a node grow; afterwards descriptors, streams and sockets of every namespace must be back."
)
REPORT: Final = ROOT / "docs" / "reports" / "soak.json"


def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing was broken."""
    parser = argparse.ArgumentParser(prog="./dev campaign soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, metavar="N", help="how long (default 30)")
    parser.add_argument("--report", type=Path, default=REPORT, metavar="FILE", help="default docs/reports/soak.json")
    given = parser.parse_args(argv)
    with many_pods("soak", PODS, SHORT_LIVED) as mesh:
        scene = soak(mesh, given.minutes)
    write(given.report, [scene], "soak", RULES)
    say(given.report.with_suffix(".md").read_text())
    return 1 if scene.broken else 0


if __name__ == "__main__":
    sys.exit(main())
