"""A run that was killed costs the next one nothing."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import leavings
from tests.support.capture_world import run


@pytest.fixture
def over() -> int:
    """The number of a process that is no more."""
    with subprocess.Popen(("true",)) as process:
        return process.pid


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in names:
            run("ip", "netns", "add", name)
            stack.callback(_away, name)
        yield


def _away(name: str) -> None:
    if (leavings.NETNS / name).exists():
        run("ip", "netns", "del", name)


def test_what_a_run_that_is_over_has_left_is_taken_away_and_that_of_a_living_one_stays(over: int) -> None:
    names = {pid: (f"amb-left-{pid}-node", f"amb-left-{pid}") for pid in (over, os.getpid())}
    with namespaces(*(name for name, _ in names.values())):
        try:
            for _, pins in names.values():
                (leavings.BPFFS / pins / "maps").mkdir(parents=True)
            leavings.collect()
            there = {
                pid: ((leavings.NETNS / name).exists(), (leavings.BPFFS / pins).exists())
                for pid, (name, pins) in names.items()
            }
            assert there == {over: (False, False), os.getpid(): (True, True)}
        finally:
            own = names[os.getpid()][1]
            (leavings.BPFFS / own / "maps").rmdir()
            (leavings.BPFFS / own).rmdir()


@pytest.mark.parametrize("of", ["soak-{}-n1", "cn-{}-node.n1", "cn-{}-pod.shop.web", "cn-{}-net", "cn-{}-control"])
def test_a_lab_whose_name_ends_in_a_number_is_left_alone(over: int, of: str) -> None:
    name = "amb-" + of.format(over)
    with namespaces(name):
        leavings.collect()
        assert (leavings.NETNS / name).exists()


def test_what_may_be_a_labs_by_its_name_is_left_alone_while_there_is_such_a_lab(over: int, tmp_path: Path) -> None:
    lab = tmp_path / f"left-{over}"
    lab.mkdir()
    pins = leavings.BPFFS / f"amb-{lab.name}"
    pins.mkdir()
    leavings.collect(labs=tmp_path)
    assert pins.exists()
    lab.rmdir()
    leavings.collect(labs=tmp_path)
    assert not pins.exists()


def test_several_may_collect_at_once(over: int) -> None:
    """Whoever comes second finds the name gone, and minds it not."""
    names = [f"amb-{kind}-{over}-{place}" for kind in ("bt", "left", "cn") for place in ("node", "pod", "other")]
    with namespaces(*names), ThreadPoolExecutor(4) as workers:
        for done in [workers.submit(leavings.collect) for _ in range(4)]:
            done.result()
        assert not any((leavings.NETNS / name).exists() for name in names)
