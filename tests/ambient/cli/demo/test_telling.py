"""A line of the story that is not true ends it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import NoReturn

import pytest

from ambient.cli.demo.app import BYTES, LINES, SERVER
from ambient.cli.demo.stage import Broken, manifest, until
from ambient.cli.demo.telling import Telling
from ambient.cli.env import Env
from ambient.kube.yaml import parse_documents
from tests.support.cli import FakeMesh


def _telling() -> tuple[Telling, io.StringIO]:
    out = io.StringIO()

    def become(_: Sequence[str]) -> NoReturn:
        raise AssertionError

    def nothing(_: float) -> None:
        return

    reach: Callable[[str | None], FakeMesh] = lambda _: FakeMesh()  # noqa: E731
    return Telling(Env(out, out, {}, lambda: 0.0, nothing, reach, become), lambda: 0.0), out


def test_a_true_line_is_told_with_its_evidence() -> None:
    tell, out = _telling()
    tell.chapter("One")
    tell.holds("water is wet", True, "tried")
    assert "1. One" in out.getvalue()
    assert "ok    water is wet  [tried]" in out.getvalue()
    assert tell.lines == 1


def test_a_false_line_ends_the_story() -> None:
    tell, out = _telling()
    with pytest.raises(Broken, match="water is dry"):
        tell.holds("water is dry", [])
    assert "FAIL  water is dry" in out.getvalue()
    assert tell.lines == 0


def test_waiting_ends_with_the_first_true_value() -> None:
    answers = iter([None, 0, "yes"])
    assert until("it answers", lambda: next(answers)) == "yes"


def test_waiting_in_vain_is_broken() -> None:
    with pytest.raises(Broken, match="it answers: not within 0 s"):
        until("it answers", lambda: False, within_s=0)


@pytest.mark.parametrize("name", ["app", "strict", "only-web"])
def test_every_manifest_of_the_story_is_accepted_by_our_own_reader(name: str) -> None:
    assert parse_documents(manifest(name), f"{name}.yaml")


@pytest.mark.parametrize("program", [SERVER, LINES, BYTES])
def test_the_programs_in_the_pods_compile(program: str) -> None:
    compile(program, "program", "exec")
