"""The story of `ambient demo` holds; and each chapter, told where the mesh is not, fails: none is true by itself."""

from __future__ import annotations

import io
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import pytest

from ambient.cli.demo import story
from ambient.cli.demo.remains import remains
from ambient.cli.demo.stage import Broken, Stage, manifest
from ambient.cli.demo.telling import Telling
from ambient.cli.env import Env
from ambient.cli.which import reach
from tests.support.lab import LabUnderTest, lab_under_test


def test_the_demo_proves_its_story_and_cleans_up() -> None:
    name = f"demo-{secrets.token_hex(3)}"
    ran = subprocess.run(
        [sys.executable, "-m", "ambient", "demo", "--name", name],
        capture_output=True,
        text=True,
        check=False,
        timeout=450,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "FAIL" not in ran.stdout
    assert remains(name) == {}


@pytest.fixture(scope="module")
def bare() -> Iterator[LabUnderTest]:
    """The demo's pods in a lab without any mesh."""
    with lab_under_test("bare") as lab:
        lab.up(manifest("app"))
        lab.wait_ready()
        yield lab


class _Pretending(Stage):
    """A stage on which changes of label and policy are accepted and nothing comes of them."""

    def up(self) -> None:
        return

    def apply(self, text: str) -> None:
        return

    def label(self, namespace: str, change: str) -> None:
        return


def _scene(lab: LabUnderTest) -> story.Scene:
    def become(_: Sequence[str]) -> NoReturn:
        raise AssertionError

    out = io.StringIO()
    env = Env(out, out, os.environ, time.time, time.sleep, reach, become)
    scene = story.Scene(_Pretending(lab.name), Telling(env), f"secret-{secrets.token_hex(16)}")
    scene.server = scene.server_now()
    scene.open["web, before"] = scene.stage.talk(story.WEB, story.HOST, story.LINES_PORT)
    scene.open["web, before"].next()
    return scene


@pytest.mark.parametrize(
    ("chapter", "line"),
    [
        (story.joining, "its three pods are in the mesh"),
        (story.encrypted, "what went to port 15008 is TLS"),
        (story.identities, "no such log|names both identities|exit code"),
        (story.strict, "its open connection is cut"),
        (story.policy, "batch's open connection is cut"),
        (story.numbers, "does not answer|counters"),
    ],
)
def test_sabotage_without_the_mesh_the_chapter_does_not_hold(
    bare: LabUnderTest, chapter: Callable[[story.Scene], None], line: str
) -> None:
    scene = _scene(bare)
    try:
        with pytest.raises(Exception, match=line) as broken:
            chapter(scene)
        assert isinstance(broken.value, Broken) or "does not answer" in str(broken.value)
    finally:
        scene.close()


def test_sabotage_what_a_lab_leaves_is_seen(bare: LabUnderTest) -> None:
    assert {"network namespaces", "processes", "control groups", "files"} <= set(remains(bare.name))
