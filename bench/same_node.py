"""The same-node kernel path beside no mesh at all: bulk, requests and the p50 of one connection, in turn, in one lab.

    ambient   mesh/client to mesh/near by the pod's address, both in a namespace that asks for the kernel path
    no mesh   bare/client to bare/near

That the connections really take the kernel path is read off the counter of it, case by case.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Final

from ambient.datapath.layout import Counter
from ambient.datapath.maps import Maps
from ambient.errors import MeshError
from ambient.lab.names import BPFFS
from bench.arms import Arm, bare, ours
from bench.cases import CASES, LOWER_IS_BETTER, Sample
from bench.slices import alternate
from bench.stats import Ratio, middle_of, paired_ratio
from bench.world import BULK, HTTP, MESH, World

MEASURED: Final = (("bulk1-same", "gbit"), ("bulk8-same", "gbit"), ("rr64-same", "rate"), ("rr1-same", "p50"))
"""Case and figure of each budget: at least as good as without a mesh."""
_PATIENCE_S: Final = 30.0
_WILLING: Final = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": MESH,
        "labels": {"istio.io/dataplane-mode": "ambient", "ambient.mesh/same-node": "kernel"},
    },
}


@dataclass(frozen=True, slots=True)
class Beside:
    """One figure of one case: medians, and how many times better than without a mesh (above 1 is better)."""

    case: str
    figure: str
    ours: float
    theirs: float
    better: Ratio

    @property
    def held(self) -> bool:
        return self.better.mean >= 1.0


def same_node(world: World, rounds: int, seconds: float) -> list[Beside]:
    """Measure in turn, `rounds` slices of `seconds` each. Raises MeshError when the path is not taken."""
    world.stage.apply(json.dumps(_WILLING))
    arms = (ours(world), bare(world))
    with Maps.open(BPFFS / world.names.lab / "n1") as tables:

        def direct() -> int:
            return tables.counters.read()[Counter.DIRECT_OUT]

        for mode, port in (("rr", HTTP), ("bulk", BULK)):
            _open_the_way(world, mode, port, direct)
        found = []
        for case in (case for case in CASES if case.name in {name for name, _ in MEASURED}):
            before = direct()
            taken = alternate(world, arms, case, rounds, seconds)
            if direct() - before < case.connections:
                raise MeshError("the kernel path was not taken", case.name)
            found += [_beside(case.name, figure, taken, arms) for name, figure in MEASURED if name == case.name]
    return found


def _open_the_way(world: World, mode: str, port: int, direct: Callable[[], int]) -> None:
    """Dial until connections to this port take the kernel path."""
    until, before = monotonic() + _PATIENCE_S, direct()
    while direct() == before:
        if monotonic() > until:
            raise MeshError("no connection takes the kernel path", f"{MESH}/near:{port}")
        world.load(f"{MESH}/client", mode, world.address(f"{MESH}/near"), port, 1, 0.05)
        sleep(0.3)


def _beside(case: str, figure: str, taken: dict[str, list[Sample]], arms: tuple[Arm, Arm]) -> Beside:
    mine, theirs = ([sample.figures[figure] for sample in taken[arm.title]] for arm in arms)
    pair = (theirs, mine) if figure in LOWER_IS_BETTER else (mine, theirs)
    return Beside(case, figure, middle_of(mine), middle_of(theirs), paired_ratio(*pair))


def lines(found: list[Beside]) -> list[str]:
    """A table of Markdown."""
    table = [
        "",
        "| same node, kernel path | ambient | no mesh | times better (95 %) | budget: >= 1.0 |",
        "|---" * 5 + "|",
    ]
    for one in found:
        said = "held" if one.held else "**missed**"
        table.append(f"| {one.case}, {one.figure} | {one.ours:.1f} | {one.theirs:.1f} | {one.better} | {said} |")
    return table
