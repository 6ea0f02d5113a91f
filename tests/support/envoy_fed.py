"""An Envoy of a test's own that is told by discovery whatever the test wants (see `bench.fed_envoy`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from ambient.waypoint.resources import ENVOY_ORDER, ENVOY_TYPES
from ambient.waypoint.typed import Named
from ambient.waypoint.wire import encode
from ambient.xds.catalogue import Catalogue
from ambient.xds.server import DeltaStream
from bench import fed_envoy as served
from bench.fed_envoy import FedEnvoy, Source
from tests.support.authority import Authority


class Told:
    """A source of whatever it is given."""

    def __init__(self) -> None:
        self.catalogue = Catalogue(types=ENVOY_TYPES)

    def tell(self, found: Iterable[Named]) -> None:
        made = [encode(*one) for one in found]
        self.catalogue.update(made, self.catalogue.revision + 1)

    def open_stream(self) -> DeltaStream:
        return DeltaStream(self.catalogue, order=ENVOY_ORDER)

    def heard(self, stream: DeltaStream) -> bool:
        return False

    def close(self, stream: DeltaStream) -> bool:
        return False


@asynccontextmanager
async def fed_envoy(source: Source, folder: Path) -> AsyncIterator[FedEnvoy]:
    """From when it has asked for something; certificates are of an authority of its own."""
    async with served.fed_envoy(source, folder, Authority().sign) as envoy:
        yield envoy
