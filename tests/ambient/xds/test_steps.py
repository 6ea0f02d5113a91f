"""Work in steps, run to its end."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from ambient.xds.steps import finish


def work(fails: bool = False) -> Generator[None, None, str]:
    yield
    if fails:
        raise KeyError("half way")
    yield
    return "done"


def test_all_steps_are_taken_and_the_result_given() -> None:
    assert finish(work()) == "done"


def test_what_the_work_raises_is_raised() -> None:
    with pytest.raises(KeyError, match="half way"):
        finish(work(fails=True))
