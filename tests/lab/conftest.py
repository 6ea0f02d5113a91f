"""Labs for the tests here: `make_lab()` gives a new one each time, `shop` one that a whole module shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.lab import LabUnderTest, lab_under_test


@pytest.fixture
def make_lab() -> Iterator[Callable[[], LabUnderTest]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(lab_under_test("lab"))


@pytest.fixture
def lab(make_lab: Callable[[], LabUnderTest]) -> LabUnderTest:
    """A lab that is not up yet."""
    return make_lab()
