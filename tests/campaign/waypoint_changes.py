"""`./dev campaign waypoint_changes [--seconds N]`: routes, canaries, certificates, endpoints and the waypoint itself
change while 500 requests a second pass it, recorded in docs/reports/waypoint-changes.json."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from tests.support.campaign_record import ROOT, keep
from tests.support.lab import LabUnderTest
from tests.support.waypoint_changes import CHANGES, RATE, Held, changing_lab, under_load

REPORT: Final = ROOT / "docs" / "reports" / "waypoint-changes.json"
_CERTIFICATES: Final = "20s"


def run(lab: LabUnderTest, name: str, seconds: float) -> Held:
    """As many changes of this kind as there is time for, at least one."""
    end, made = time.monotonic() + seconds, 0

    def until_the_end(lab: LabUnderTest, _: int) -> None:
        nonlocal made
        while made == 0 or time.monotonic() < end:
            CHANGES[name](lab, made)
            made += 1

    held = under_load(lab, name, 1, until_the_end)
    return Held(held.change, made, held.requests, held.seconds, held.failed)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when no request failed and the load was what it says."""
    parser = argparse.ArgumentParser(prog="./dev campaign waypoint_changes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="of each kind of change (default 60)")
    parser.add_argument("--only", choices=tuple(CHANGES), action="append", help="of these kinds alone; nothing is kept")
    given = parser.parse_args(arguments)
    found = []
    with changing_lab(_CERTIFICATES) as lab:
        for name in given.only or CHANGES:
            found.append(run(lab, name, given.seconds))
            print(found[-1], flush=True)
    if not given.only:
        keep(REPORT, "changes", found, lambda about: _markdown(about, found), rate=RATE)
    return 1 if any(one.failed or one.requests < RATE * one.seconds * 0.95 for one in found) else 0


def _markdown(about: dict[str, Any], found: Sequence[Held]) -> str:
    where = f"{about['date']}, commit {about['commit'][:12]}, {about['cores']} cores, {about['rate']} requests a second"
    told = (
        f"{where} offered, from a client on one node through the waypoint to pods on another, on eight connections that"
        f" stay open. Certificates of the waypoint and of ztunnels are good for {_CERTIFICATES} here."
        " Each connection waits for its answers, so a busy machine may reach less than what is offered."
    )
    rows = "\n".join(
        f"| {one.change} | {one.times} | {one.requests} | {one.requests / one.seconds:.0f}/s | {_failed(one)} |"
        for one in found
    )
    table = f"| what changes | times | requests | reached | failed |\n|---|---|---|---|---|\n{rows}\n"
    return f"# A waypoint that changes under load\n\n{told}\n\n{table}"


def _failed(one: Held) -> str:
    return ", ".join(f"{count} {what}" for what, count in one.failed.items()) or "0"


if __name__ == "__main__":
    sys.exit(main())
