"""What one pod that floods its node costs the others: their p99 beside it, over their p99 without it.

    flood      mesh/idle-0 opens new connections to mesh/near as fast as it can, both on node n1
    bystander  mesh/client asks mesh/far over connections that stay open, from node n1 to n2

Both ends of the flood and the bystander's end are the same ztunnel's. With and without take turns, in one lab.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import sleep
from typing import Final

from ambient.cli.lab_read import exec_argv
from bench.stats import Ratio, middle_of, paired_ratio
from bench.world import HTTP, MESH, World

MOST_TIMES: Final = 2.0
"""The budget: p99 beside a flood over p99 without."""
BYSTANDERS: Final = 4
FLOODERS: Final = 64
_FLOOD: Final = f"{MESH}/idle-0"
_UNDER_WAY_S: Final = 1.5
"""Longer than a pod's burst lasts and than it takes to notice that others are at work."""


@dataclass(frozen=True, slots=True)
class Fair:
    """Microseconds of p50 and p99 of the bystander without and beside the flood; p99 beside over without."""

    p50_alone: float
    p50_beside: float
    p99_alone: float
    p99_beside: float
    ratio: Ratio
    errors: int

    @property
    def held(self) -> bool:
        """The budget is, with 95 % certainty."""
        return self.ratio.high < MOST_TIMES and not self.errors


def fair(world: World, rounds: int, seconds: float) -> Fair:
    """Measure in turn; which comes first changes from round to round."""
    taken: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    _bystander(world, seconds)
    for number in range(rounds):
        for flooded in (False, True) if number % 2 else (True, False):
            if flooded:
                with _flood(world, seconds):
                    taken[True].append(_bystander(world, seconds))
            else:
                taken[False].append(_bystander(world, seconds))
    p99 = {flooded: [one["p99_us"] for one in found] for flooded, found in taken.items()}
    p50 = {flooded: middle_of([one["p50_us"] for one in found]) for flooded, found in taken.items()}
    return Fair(
        p50_alone=p50[False],
        p50_beside=p50[True],
        p99_alone=middle_of(p99[False]),
        p99_beside=middle_of(p99[True]),
        ratio=paired_ratio(p99[True], p99[False]),
        errors=int(sum(one["errors"] for found in taken.values() for one in found)),
    )


def _bystander(world: World, seconds: float) -> dict[str, float]:
    return world.load(f"{MESH}/client", "rr", world.address(f"{MESH}/far"), HTTP, BYSTANDERS, seconds)


@contextmanager
def _flood(world: World, seconds: float) -> Iterator[None]:
    """A flood that is under way, and stays so for longer than the bystander is measured."""
    lasting = seconds + 10 * _UNDER_WAY_S
    words = ["crr", world.address(f"{MESH}/near"), str(HTTP), str(FLOODERS), str(lasting)]
    argv = exec_argv(world.lab, world.lab.pod(_FLOOD), [str(world.binary), *words])
    flood = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        # The bystander has to be at work for the flood to be held back at all.
        _bystander(world, _UNDER_WAY_S)
        yield
        if flood.poll() is not None:
            raise ChildProcessError("the flood has ended before the measurement")
    finally:
        flood.kill()
        flood.wait()
        sleep(_UNDER_WAY_S)


def lines(found: Fair, workers: int) -> list[str]:
    """A table of Markdown."""
    return [
        "",
        f"| bystander, {BYSTANDERS} keep-alive connections | without a flood | beside one | ratio (95 %) | budget |",
        "|---" * 5 + "|",
        f"| p50, us | {found.p50_alone:.0f} | {found.p50_beside:.0f} | | |",
        f"| p99, us, {workers} workers | {found.p99_alone:.0f} | {found.p99_beside:.0f} | {found.ratio} |"
        f" {'held' if found.held else '**missed**'} |",
    ]
