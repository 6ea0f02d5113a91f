"""`./dev campaign waypoint_models [--models N] [--seed S]`: random services, which one Envoy has to take.

Recorded in docs/reports/waypoint-models.json; what Envoy refuses ends it, with the name and the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.campaign_record import ROOT, keep
from tests.support.envoy_fed import Told, fed_envoy
from tests.support.waypoint_models import models, take

REPORT: Final = ROOT / "docs" / "reports" / "waypoint-models.json"
_SHARE: Final = 100
"""Models at once, as the services of one waypoint; the next share takes their place, with the next seed."""


@dataclass(frozen=True)
class Share:
    """`unfit`: objects drawn that our own parsers refused, and that were drawn again."""

    seed: int
    models: int
    objects: dict[str, int]
    resources: int
    unfit: int


async def run(count: int, seed: int) -> list[Share]:
    """Raises AssertionError with what was refused."""
    told, done = Told(), []
    with tempfile.TemporaryDirectory() as folder:
        async with fed_envoy(told, Path(folder)) as envoy:
            for number in range(seed, seed + -(-count // _SHARE)):
                found = models(number, _SHARE)
                taken = await take(told, envoy, found)
                assert not taken.refused, (number, taken.refused)
                done.append(Share(number, _SHARE, dict(found.kinds), taken.resources, found.unfit))
                if len(done) % 10 == 0:
                    print(f"{len(done) * _SHARE} models", flush=True)
    return done


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev campaign waypoint_models")
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1_000)
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    shares = asyncio.run(run(options.models, options.seed))
    objects: Counter[str] = Counter()
    for share in shares:
        objects.update(share.objects)
    figures = {
        "models": sum(share.models for share in shares),
        "objects": dict(sorted(objects.items())),
        "resources": sum(share.resources for share in shares),
        "drawn_again": sum(share.unfit for share in shares),
        "refused_by_envoy": 0,
        "seconds": round(time.monotonic() - begun, 1),
    }
    keep(REPORT, "shares", shares, lambda about: _markdown(about, figures), **figures)
    print(figures)
    return 0


def _markdown(about: dict[str, Any], figures: dict[str, Any]) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in figures["objects"].items())
    where = f"{about['date']}, commit {about['commit'][:12]}, {about['cores']} cores."
    told = (
        f"{figures['models']} services behind a waypoint, drawn at random with whatever our parsers take, in shares of"
        f" {_SHARE} that take each other's place in one running Envoy by delta discovery:"
        f" {figures['resources']} resources, of which Envoy refused {figures['refused_by_envoy']}."
        f" Our own parsers refused {figures['drawn_again']} objects, which were drawn again. {figures['seconds']} s."
    )
    return f"# Random models that Envoy takes\n\n{where}\n\n{told}\n\n| kind | objects |\n|---|---|\n{rows}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
