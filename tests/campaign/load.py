"""`./dev campaign load`: every load in full size, recorded in docs/reports/load.{json,md}.

A scene that cannot be carried through counts as broken, and the next one gets a mesh of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ambient.errors import MeshError
from tests.support.campaign_record import keep
from tests.support.journey import FAR, NEAR, Journey, journey
from tests.support.load import Scene, crowd, peers, resets, sequence, stall, trickle, warm
from tests.support.load_joining import ORDERS, changes_under_load, two_namespaces
from tests.support.load_ledger import at_rest, ledger, leftovers, watched
from tests.support.load_pods import churn, many_pods

ROOT: Final = Path(__file__).resolve().parents[2]
REPORT: Final = ROOT / "docs" / "reports" / "load.json"
PODS: Final = 60
ONE_MESH: Final[tuple[Callable[[Journey], Scene], ...]] = (
    lambda mesh: sequence(mesh, 10_000),
    lambda mesh: crowd(mesh, 2_000),
    lambda mesh: trickle(mesh, 65_536),
    lambda mesh: resets(mesh, 20),
    lambda mesh: stall(mesh, FAR, 40, then="read"),
    lambda mesh: stall(mesh, NEAR, 40, then="read"),
    lambda mesh: stall(mesh, FAR, 40, then="die"),
    lambda mesh: stall(mesh, NEAR, 40, then="die"),
    lambda mesh: crowd(mesh, 2_000),
    lambda mesh: sequence(mesh, 10_000),
)
"""One after the other in the same mesh; the last two show what is lost on the way, if anything is."""


@contextmanager
def _recorded(scenes: list[Scene], name: str) -> Iterator[None]:
    """What keeps a scene from being carried through is its verdict."""
    try:
        yield
    except (AssertionError, MeshError, OSError, subprocess.SubprocessError, ValueError) as error:
        scenes.append(Scene(name, broken=[f"{type(error).__name__}: {error}"[:600]]))


def one_mesh(scenes: list[Scene]) -> None:
    """The scenes of the journeys' mesh, and what all of them left."""
    with journey("load") as mesh, peers(mesh), watched(mesh.lab) as watch:
        warm(mesh)
        before = at_rest(mesh)
        for scene in ONE_MESH:
            with _recorded(scenes, "a load on two nodes"):
                began = time.monotonic()
                done = scene(mesh)
                done.broken += [f"afterwards: {what}" for what in leftovers(mesh, before)]
                done.figures["seconds"] = round(time.monotonic() - began, 1)
                scenes.append(done)
                say(str(done))
        end = Scene("after all of them", {"before": before.text(), "after": ledger(mesh).text()})
        end.figures["longest_close_wait_s"] = round(watch.worst_s, 1)
        end.broken += watch.broken()
        scenes.append(end)
        say(str(end))


def run(scenes: list[Scene], pods: int, rounds: int, changes: int) -> None:
    with _recorded(scenes, "the mesh of the journeys"):
        one_mesh(scenes)
    with _recorded(scenes, f"{pods} pods on 3 nodes"), many_pods("churn", pods) as mesh:
        scenes.append(churn(mesh, pods, rounds))
        say(str(scenes[-1]))
    with _recorded(scenes, "joining and leaving"), two_namespaces("bulk") as mesh:
        scenes.append(changes_under_load(mesh, ORDERS * changes))
        say(str(scenes[-1]))


RULES: Final = (
    "After every scene descriptors, streams, memory (proportional) of every worker and director and the sockets\n"
    "of every namespace must be back where they were before the first; no socket may stay in CLOSE-WAIT for 60 s."
)


def write(report: Path, scenes: Iterable[Scene], name: str = "load", rules: str = RULES) -> None:
    """The JSON, and beside it the same as Markdown. `name`: the campaign's; `rules`: what the verdicts stand for."""
    scenes = list(scenes)
    keep(report, "scenes", scenes, lambda about: markdown(about, scenes, name, rules))


def markdown(about: dict[str, Any], scenes: Sequence[Scene], name: str, rules: str) -> str:
    lines = [
        f"# {name.capitalize()}",
        "",
        f"`./dev campaign {name}`, {about['date']}, commit {about['commit'][:12]}, Linux {about['kernel']}, "
        f"{about['cores']} cores.",
        rules,
        "",
        "| scene | figures | broken |",
        "|---|---|---|",
    ]
    for scene in scenes:
        figures = ", ".join(f"{key} {_value(value)}" for key, value in scene.figures.items())
        lines.append(f"| {scene.name} | {figures} | {'; '.join(scene.broken).replace('|', '/') or 'nothing'} |")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value or 0)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing was broken."""
    parser = argparse.ArgumentParser(prog="./dev campaign load", description=__doc__)
    parser.add_argument("--pods", type=int, default=PODS, metavar="N", help=f"pods on 3 nodes (default {PODS})")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="how often pods come and go (default 20)")
    parser.add_argument("--changes", type=int, default=5, metavar="N", help="x 16 changes of membership (default 5)")
    parser.add_argument("--report", type=Path, default=REPORT, metavar="FILE", help="default docs/reports/load.json")
    given = parser.parse_args(argv)
    scenes: list[Scene] = []
    run(scenes, given.pods, given.rounds, given.changes)
    write(given.report, scenes)
    say("\n" + given.report.with_suffix(".md").read_text())
    return 1 if any(scene.broken for scene in scenes) else 0


if __name__ == "__main__":
    sys.exit(main())
