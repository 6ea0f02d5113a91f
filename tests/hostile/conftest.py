"""One mesh for all hostile peers of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.arena import Arena, arena


@pytest.fixture(scope="session")
def place() -> Iterator[Arena]:
    with arena("arena") as made:
        yield made


@pytest.fixture
def bystander(place: Arena) -> Iterator[None]:
    """Whatever the test does, the bystander goes on."""
    yield
    place.unharmed()
