"""An agent that is killed at any line of its work on a pod: whoever comes next has it fully in or fully out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambient.datapath import pod_net, programs
from tests.support.agent_lab import settled_world
from tests.support.capture_world import World

ROOT = Path(__file__).parents[2]
EVERY = int(os.environ.get("AMBIENT_TEST_EVERY_LINE", "6"))
"""Of the lines, each sixth is tried here; 1 takes some minutes."""


@pytest.fixture(scope="module")
def the_world() -> Iterator[World]:
    with settled_world(f"amb-any-{os.getpid()}") as made:
        yield made


@pytest.fixture
def bpffs(the_world: World) -> Iterator[Path]:
    path = Path("/sys/fs/bpf") / the_world.prefix
    programs.load(path, "object")
    yield path
    programs.unload(path)
    pod_net.restore(the_world.pod.netns, pod_net.PodNet("0"))


def ended_before_lines(the_world: World, bpffs: Path | None, state: Path, way: str, every: int) -> dict[str, Any]:
    """What came of it, as `tests.support.ends_at_any_line` tells it."""
    state.mkdir()
    scene = {
        "bpffs": str(bpffs or ""),
        "state": str(state),
        "netns": f"/run/netns/{the_world.prefix}-pod",
        "addresses": list(the_world.pod.addresses.values()),
        "way": way,
        "every": every,
    }
    node = f"--net=/run/netns/{the_world.prefix}-node"
    done = subprocess.run(
        ["nsenter", node, sys.executable, "-m", "tests.support.ends_at_any_line", json.dumps(scene)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["wrong"] == []
    return answer


@pytest.mark.parametrize("way", ["in", "out"])
def test_killed_before_any_line(the_world: World, bpffs: Path, tmp_path: Path, way: str) -> None:
    answer = ended_before_lines(the_world, bpffs, tmp_path / "state", way, EVERY)
    assert answer["ends"] > 100 // EVERY
    assert {"apply.py", "journal.py", "kernel.py", "pod_net.py", "programs.py"} <= {*answer["files"]}


@pytest.mark.parametrize("way", ["in", "out"])
def test_killed_before_any_line_where_rules_capture(the_world: World, tmp_path: Path, way: str) -> None:
    answer = ended_before_lines(the_world, None, tmp_path / "state", way, EVERY * 3)
    assert answer["ends"] > 40 // EVERY
    assert {"apply.py", "journal.py", "kernel.py", "pod_net.py", "rule_kernel.py", "nft.py"} <= {*answer["files"]}
