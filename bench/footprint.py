"""Memory of every process of an arm: before there was load, at its height, and after it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from bench.arms import Arm
from bench.cases import CASES, run_case
from bench.process import Memory, memory, role
from bench.world import World

_HEAVY = ("rr64", "crr", "bulk8")
_LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Footprint:
    """One process: its PSS and private memory, KiB, idle and the highest under load."""

    arm: str
    role: str
    idle: Memory
    loaded: Memory


def idle(arm: Arm) -> dict[int, Memory]:
    """Every process of the arm as it is now."""
    return {pid: found for pid in arm.pids() if (found := memory(pid)) is not None}


def footprints(world: World, arm: Arm, before: dict[int, Memory], seconds: float) -> list[Footprint]:
    """Load the arm with the heavy cases, looking at its processes several times a second."""
    highest = dict(before)
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            for pid in before:
                found = memory(pid)
                if found is not None and found.pss > highest[pid].pss:
                    highest[pid] = found

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for case in CASES:
            if case.name in _HEAVY:
                run_case(world, arm, case, seconds)
    finally:
        over.set()
        watcher.join()
    return [Footprint(arm.title, role(pid), before[pid], highest[pid]) for pid in before]
