"""Programs of others beside ours are named, with whether they run first; none is touched and traffic goes on."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.datapath import bpfsys, programs
from ambient.datapath.hooks import Attach
from ambient.datapath.strangers import Stranger, strangers
from ambient.netns import entered
from tests.support.capture_bench import Bench, greeting
from tests.support.capture_world import run


@pytest.fixture(scope="session")
def other_mesh() -> Iterator[Path]:
    """A second mesh's programs on the machine."""
    path = Path(f"/sys/fs/bpf/amb-bt-{os.getpid()}-other")
    programs.load(path, "object")
    yield next((path / "programs").iterdir())
    programs.unload(path)


def attach(bench: Bench, program: Path, *, first: bool) -> None:
    with entered(bench.world.pod.netns), bpfsys.opened(program) as descriptor:
        index = socket.if_nametoindex("eth0")
        link = bpfsys.create_link(descriptor, index, Attach.TCX_INGRESS, "a stranger", before_all=first)
    bench.stack.callback(os.close, link)


def test_alone_there_are_none(bench: Bench) -> None:
    bench.attach(bench.world.pod)
    assert strangers(bench.bpffs, bench.world.pod.netns, "eth0") == ()
    assert strangers(bench.bpffs, bench.world.pod.netns, "eth9") == ()


@pytest.mark.parametrize("first", [True, False])
def test_a_program_of_another_mesh_is_named_with_its_place(bench: Bench, other_mesh: Path, first: bool) -> None:
    server = bench.app(bench.world.pod, 4)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    attach(bench, other_mesh / "host_egress", first=first)
    found = strangers(bench.bpffs, bench.world.pod.netns, "eth0")
    assert found == (Stranger("eth0", "ingress", "tcx", "host_egress", first=first),)
    assert str(found[0]) == f"host_egress (tcx, ingress of eth0, {'before' if first else 'after'} ours)"
    greeting(bench.connect(bench.world.outside, server.address))


def test_a_filter_of_tc_is_named_and_has_its_say_after_ours(bench: Bench, other_mesh: Path) -> None:
    server = bench.app(bench.world.pod, 4)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    inside = ("nsenter", f"--net=/run/netns/{bench.world.prefix}-pod")
    run(*inside, "tc", "qdisc", "add", "dev", "eth0", "clsact")
    bench.stack.callback(run, *inside, "tc", "qdisc", "del", "dev", "eth0", "clsact")
    pinned = str(other_mesh / "host_egress")
    run(*inside, "tc", "filter", "add", "dev", "eth0", "ingress", "bpf", "da", "object-pinned", pinned)
    (found,) = strangers(bench.bpffs, bench.world.pod.netns, "eth0")
    assert (found.kind, found.direction, found.first) == ("clsact", "ingress", False)
    greeting(bench.connect(bench.world.outside, server.address))
