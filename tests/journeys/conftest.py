"""`mesh`: the mesh of the journeys, namespace shop in it; tests of a module share it and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.journey import Journey, journey


@pytest.fixture(scope="module")
def mesh() -> Iterator[Journey]:
    with journey("way") as found:
        yield found
