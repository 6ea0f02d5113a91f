"""Fixtures of the capture tests: one world of namespaces for the run, one loaded datapath per loader."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import pytest

from ambient.datapath import programs
from ambient.datapath.layout import Role
from ambient.datapath.maps import Maps
from ambient.datapath.tc_sockets import Listeners
from tests.support import leavings
from tests.support.capture_bench import Bench
from tests.support.capture_world import World, world


@pytest.fixture(scope="session")
def the_world() -> Iterator[World]:
    leavings.collect()
    with world(f"amb-bt-{os.getpid()}") as made:
        yield made


@pytest.fixture(scope="session", params=["bcc", "object"])
def bpffs(request: pytest.FixtureRequest) -> Iterator[Path]:
    """In the form that this kernel takes; "-named": in that one, for tests that ask with `EVERY_FORM` or `NAMED`."""
    loader, _, form = request.param.partition("-")
    path = Path(f"/sys/fs/bpf/amb-bt-{os.getpid()}-{request.param}")
    programs.load(path, cast(Literal["bcc", "object"], loader), listeners=cast(Listeners, form) if form else None)
    yield path
    programs.unload(path)
    assert not path.exists()


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def version(request: pytest.FixtureRequest) -> int:
    return cast(int, request.param)


@pytest.fixture
def via(request: pytest.FixtureRequest) -> programs.Via:
    """How programs come onto interfaces; a module that is to hold for every way asks with `EVERY_WAY`."""
    return cast(programs.Via, getattr(request, "param", "tcx"))


@pytest.fixture
def bench(the_world: World, bpffs: Path, via: programs.Via) -> Iterator[Bench]:
    with contextlib.ExitStack() as stack:
        maps = stack.enter_context(Maps.open(bpffs))
        maps.owners.put(the_world.cgroup_id("ztunnel"), Role.ZTUNNEL)
        maps.owners.put(the_world.cgroup_id("kubelet"), Role.KUBELET)

        def forget() -> None:
            for ip in maps.pods.items():
                maps.pods.delete(ip)
            for cgroup in maps.owners.items():
                maps.owners.delete(cgroup)

        stack.callback(forget)
        if (bpffs / "maps" / "listeners").exists():
            programs.attach_node(bpffs, the_world.cgroup["node"])
            stack.callback(programs.detach_node, bpffs)
        yield Bench(the_world, bpffs, maps, stack, via)


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Packets sent one after the other stay in that order."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What comes onto an interface as a filter is the same whoever compiled it: once is enough."""
    twice = [item for item in items if "bcc" in item.name and "clsact" in item.name]
    items[:] = [item for item in items if item not in twice]
    config.hook.pytest_deselected(items=twice)
