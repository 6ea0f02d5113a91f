"""An agent that is killed at any line of its work on a pod: whoever comes next has it fully in or fully out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


@pytest.mark.parametrize("way", ["in", "out"])
def test_killed_before_any_line(the_world: World, bpffs: Path, tmp_path: Path, way: str) -> None:
    scene = {
        "bpffs": str(bpffs),
        "state": str(tmp_path),
        "netns": f"/run/netns/{the_world.prefix}-pod",
        "addresses": list(the_world.pod.addresses.values()),
        "way": way,
        "every": EVERY,
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
    answer = json.loads(done.stdout)
    assert answer["wrong"] == []
    assert answer["ends"] > 100 // EVERY
    assert {"apply.py", "journal.py", "kernel.py", "pod_net.py", "programs.py"} <= {*answer["files"]}
