"""`./dev campaign hostile`: what neighbours feel of hostile peers, recorded in docs/reports/hostile.{json,md}.

A bystander's echoes on an old connection and its requests on new ones are timed with and without the peers, in turn;
the 99th percentile with them, divided by the one without, must stay below 2 (median of the rounds). Beside them is what
as many honest peers do to it: each is a handshake, and on a quiet machine that is what a neighbour waits for.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.arena import Arena, arena
from tests.support.campaign_record import keep
from tests.support.hostile_families import FAMILIES, HONEST, swarm

ROOT: Final = Path(__file__).resolve().parents[2]
REPORT: Final = ROOT / "docs" / "reports" / "hostile.json"
BOUND: Final = 2.0
WARM_S: Final = 0.3
"""Watched, but not counted, after every change."""
ECHOES_PER_REQUEST: Final = 10


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one family, medians over the rounds: how many times the 99th percentile of echoes and of requests is with it
    what it is without, and both in milliseconds."""

    family: str
    peers: int
    echo_ratio: float
    echo_ms: float
    echo_hostile_ms: float
    request_ratio: float
    request_ms: float
    request_hostile_ms: float


def percentile(values: Sequence[float], share: float = 0.99) -> float:
    """The smallest value that so many of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def watch(place: Arena, seconds: float) -> tuple[float, float]:
    """99th percentiles of the bystander's echoes and requests during so long; AssertionError when it is harmed."""
    echoes: list[float] = []
    requests: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        echoes.extend(place.bystander.echo() for _ in range(ECHOES_PER_REQUEST))
        requests.append(place.bystander.request())
    return percentile(echoes), percentile(requests)


def measure(place: Arena, family: str, per_second: float, rounds: int, seconds: float) -> Figures:
    quiet: list[tuple[float, float]] = []
    loud: list[tuple[float, float]] = []
    for _ in range(rounds):
        quiet.append(watch(place, seconds))
        with swarm(place, family, per_second):
            watch(place, WARM_S)
            loud.append(watch(place, seconds))
        watch(place, WARM_S)
    pairs = [
        (with_[kind] / without[kind], without[kind], with_[kind])
        for kind in (0, 1)
        for without, with_ in zip(quiet, loud, strict=True)
    ]
    echo, request = pairs[:rounds], pairs[rounds:]
    return Figures(family, len(FAMILIES[family]), *_middle(echo), *_middle(request))


def _middle(rounds: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The median of each figure over the rounds: a burst of somebody else's work falls into one of them."""
    ratio, without, with_ = (statistics.median(values) for values in zip(*rounds, strict=True))
    return round(ratio, 3), round(1000 * without, 3), round(1000 * with_, 3)


def write(report: Path, found: Sequence[Figures], per_second: float) -> None:
    """The JSON, and beside it the same as Markdown."""
    keep(report, "families", found, lambda about: markdown(about, found), per_second=per_second)


def markdown(about: dict[str, object], found: Sequence[Figures]) -> str:
    lines = [
        "# Hostile peers and their neighbours",
        "",
        f"`./dev campaign hostile`, {about['date']}, commit {str(about['commit'])[:12]}, Linux {about['kernel']}, "
        f"{about['cores']} cores; {about['per_second']} hostile connections per second to the pod that the bystander",
        "talks with. 99th percentiles in milliseconds, without and with the peers in turn: medians of the rounds, and",
        "of their ratios; the bound is 2.",
        "",
        "| family | peers | echo | with them | ratio | request | with them | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        echo, request = one.echo_ratio, one.request_ratio
        lines.append(
            f"| {one.family} | {one.peers} | {one.echo_ms:.2f} | {one.echo_hostile_ms:.2f} | {_ratio(echo)} "
            f"| {one.request_ms:.2f} | {one.request_hostile_ms:.2f} | {_ratio(request)} |"
        )
    return "\n".join(lines) + "\n"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < BOUND else f"**{value:.2f}**"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every ratio of hostile peers is below the bound."""
    parser = argparse.ArgumentParser(prog="./dev campaign hostile", description=__doc__)
    parser.add_argument("--per-second", type=float, default=20, metavar="N", help="hostile connections (default 20)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="with and without, in turn (default 7)")
    parser.add_argument("--seconds", type=float, default=0.6, metavar="S", help="of each half of a round (default 0.6)")
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only this one; may be repeated")
    parser.add_argument("--report", type=Path, default=REPORT, metavar="FILE", help="default docs/reports/hostile.json")
    given = parser.parse_args(argv)
    found = []
    with arena("hostile") as place:
        watch(place, 1.0)
        for family in given.family or FAMILIES:
            found.append(measure(place, family, given.per_second, given.rounds, given.seconds))
            say(f"{family}: echo {found[-1].echo_ratio:.2f}, request {found[-1].request_ratio:.2f}")
    write(given.report, found, given.per_second)
    say("\n" + given.report.with_suffix(".md").read_text())
    hostile = (one for one in found if one.family != HONEST)
    return 1 if any(max(one.echo_ratio, one.request_ratio) >= BOUND for one in hostile) else 0


if __name__ == "__main__":
    sys.exit(main())
