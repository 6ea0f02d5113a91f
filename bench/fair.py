"""What one pod that floods its node costs the others: their p99 beside it, over their p99 without it.

    flood      mesh/idle-0 opens new connections to mesh/near as fast as it can, both on node n1
    bystander  mesh/client asks mesh/far over connections that stay open, from node n1 to n2

Both ends of the flood and the bystander's end are the same ztunnel's. With and without take turns, in one lab: some
slices of the bystander beside a flood that is under way, and as many without one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from bench.slices import Load, in_turn, running
from bench.stats import Ratio, middle_of, paired_ratio
from bench.world import HTTP, MESH, World

MOST_TIMES: Final = 2.0
"""The budget: p99 beside a flood over p99 without."""
BYSTANDERS: Final = 4
FLOODERS: Final = 64
_FLOOD: Final = f"{MESH}/idle-0"
_UNDER_WAY_S: Final = 1.5
"""Longer than a pod's burst lasts and than it takes to notice that others are at work."""
_CALM_S: Final = 0.3
"""Until what the flood has left behind is done."""
_IN_A_ROW: Final = 4
"""Slices, each time that the flood is under way."""


Slices = Sequence[Mapping[str, float]]
"""What the bystander's load generator said of each, one after the other."""


@dataclass(frozen=True, slots=True)
class Fair:
    """Microseconds of p50 and p99 of the bystander without and beside the flood; p99 beside over without. `late`: its
    requests that had no answer a second after their slice (in the p99 with what they had waited); `empty`: slices in
    which it had no connection any more."""

    p50_alone: float
    p50_beside: float
    p99_alone: float
    p99_beside: float
    ratio: Ratio
    errors: int
    late: int = 0
    empty: int = 0

    @property
    def held(self) -> bool:
        """The budget is, with 95 % certainty, and the bystander was always there to be measured."""
        return self.ratio.high < MOST_TIMES and not self.errors and not self.empty


def fair(world: World, rounds: int, seconds: float) -> Fair:
    """`rounds` slices of the bystander with and without, each of `seconds`."""
    with _bystander(world) as bystander, _flooder(world) as flood:

        def alone() -> list[dict[str, float]]:
            bystander.slice(_CALM_S)
            return [bystander.slice(seconds) for _ in range(_IN_A_ROW)]

        def beside() -> list[dict[str, float]]:
            flood.go_on()
            # The bystander has to be at work for the flood to be held back at all.
            bystander.slice(_UNDER_WAY_S)
            found = [bystander.slice(seconds) for _ in range(_IN_A_ROW)]
            flood.stop()
            return found

        bystander.slice(seconds)
        taken = in_turn({"alone": alone, "beside": beside}, math.ceil(rounds / _IN_A_ROW))
    return summed(taken)


def summed(taken: Mapping[str, Sequence[Slices]]) -> Fair:
    """Of rows of slices "alone" and "beside", as many of each."""
    p99 = {title: [one["p99_us"] for row in rows for one in row] for title, rows in taken.items()}
    p50 = {title: middle_of([one["p50_us"] for row in rows for one in row]) for title, rows in taken.items()}
    each = [one for rows in taken.values() for row in rows for one in row]
    return Fair(
        p50_alone=p50["alone"],
        p50_beside=p50["beside"],
        p99_alone=middle_of(p99["alone"]),
        p99_beside=middle_of(p99["beside"]),
        ratio=paired_ratio(*(_geometric(taken[title]) for title in ("beside", "alone"))),
        errors=int(sum(one["errors"] for one in each)),
        late=int(sum(one["late"] for one in each)),
        empty=sum(not one["p99_us"] for one in each),
    )


def _geometric(rows: Sequence[Slices]) -> list[float]:
    """Of the p99s of slices in a row, which are no more than one observation of with or without; 0 of empty ones."""
    filled = ([one["p99_us"] for one in row if one["p99_us"]] for row in rows)
    return [math.exp(fmean(map(math.log, row))) if row else 0.0 for row in filled]


def _bystander(world: World) -> AbstractContextManager[Load]:
    return running(world, f"{MESH}/client", "rr", world.address(f"{MESH}/far"), HTTP, BYSTANDERS)


def _flooder(world: World) -> AbstractContextManager[Load]:
    return running(world, _FLOOD, "crr", world.address(f"{MESH}/near"), HTTP, FLOODERS)


def lines(found: Fair, workers: int) -> list[str]:
    """A table of Markdown."""
    return [
        "",
        f"| bystander, {BYSTANDERS} keep-alive connections | without a flood | beside one | ratio (95 %) | budget |",
        "|---" * 5 + "|",
        f"| p50, us | {found.p50_alone:.0f} | {found.p50_beside:.0f} | | |",
        f"| p99, us, {workers} workers | {found.p99_alone:.0f} | {found.p99_beside:.0f} | {found.ratio} |"
        f" {'held' if found.held else '**missed**'} |",
        "",
        f"errors {found.errors}, late {found.late}, empty slices {found.empty}",
    ]
