"""`./dev campaign waypoint_models [--models N] [--seed S]`: random services and gateways, which Envoy has to take.

Recorded in docs/reports/waypoint-models.json; what Envoy refuses ends it, with the name and the reason.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.fed_envoy import FedEnvoy
from tests.support.campaign_record import ROOT, keep
from tests.support.envoy_fed import Told, fed_envoy
from tests.support.random_gateways import Fronted, gateway_model
from tests.support.waypoint_models import Models, models, take

REPORT: Final = ROOT / "docs" / "reports" / "waypoint-models.json"
_SERVED: Final = 80
_GATEWAYS: Final = 20
_SHARE: Final = _SERVED + _GATEWAYS
"""Models of a share: so many services and servers outside at once, behind one waypoint, and gateways one by one.
The next share takes their place, with the next seed."""


@dataclass(frozen=True)
class Share:
    """`unfit`: objects drawn that our own parsers refused, and that were drawn again."""

    seed: int
    models: int
    objects: dict[str, int]
    resources: int
    unfit: int


class Taking:
    """Two Envoys, one of a waypoint and one of an ingress, that are told one share after another."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Taking:
        self._inside, self._edge = [await self._fed() for _ in range(2)]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def _fed(self) -> tuple[Told, FedEnvoy]:
        told, folder = Told(), self._stack.enter_context(tempfile.TemporaryDirectory())
        return told, await self._stack.enter_async_context(fed_envoy(told, Path(folder)))

    async def share(self, seed: int) -> Share:
        """Raises AssertionError with what was refused."""
        found = models(seed, _SERVED)
        resources, drawn = await self._taken(self._inside, seed, found), [found.unfit]
        objects = Counter(found.kinds)
        for number in range(seed * _GATEWAYS, (seed + 1) * _GATEWAYS):
            gateway = gateway_model(number)
            resources += await self._taken(self._edge, number, gateway)
            objects.update(gateway.kinds)
            drawn.append(gateway.unfit)
        return Share(seed, _SHARE, dict(objects), resources, sum(drawn))

    @staticmethod
    async def _taken(by: tuple[Told, FedEnvoy], seed: int, found: Models | Fronted) -> int:
        taken = await take(*by, found)
        assert not taken.refused, (type(found).__name__, seed, taken.refused)
        return taken.resources


async def run(count: int, seed: int) -> list[Share]:
    """Raises AssertionError with what was refused."""
    done = []
    async with Taking() as taking:
        for number in range(seed, seed + -(-count // _SHARE)):
            done.append(await taking.share(number))
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
        f"{figures['models']} models, drawn at random with whatever our parsers take, in shares of {_SHARE}:"
        f" {_SERVED} services and servers outside at once behind a waypoint, which is for workloads, too, in half of"
        f" the shares, and {_GATEWAYS} ingress gateways one after another. They take each other's place in two running"
        f" Envoys by delta discovery: {figures['resources']} resources, of which Envoy refused"
        f" {figures['refused_by_envoy']}. Our own parsers refused {figures['drawn_again']} objects, which were drawn"
        f" again. {figures['seconds']} s."
    )
    return f"# Random models that Envoy takes\n\n{where}\n\n{told}\n\n| kind | objects |\n|---|---|\n{rows}\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
