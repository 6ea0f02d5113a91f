"""Loading, upgrading, crashing, detaching: what is pinned is always whole, and in the end nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

import pytest

from ambient.datapath import bpfinfo, bpfsys, btf, programs, sources, tc_sockets
from ambient.datapath.bpffs import ensure_bpffs
from ambient.datapath.hooks import HOOKS, NODE_HOOKS
from ambient.datapath.layout import Flag, PodRow
from ambient.datapath.maps import Maps
from ambient.errors import InvalidInput, KernelError, Unavailable
from tests.support.bpf_links import link_programs
from tests.support.capture_bench import Bench, echoed, greeting
from tests.support.capture_world import run

Loader = Literal["bcc", "object"]
OTHER: dict[Loader, Loader] = {"bcc": "object", "object": "bcc"}


@pytest.fixture
def scratch() -> Iterator[Path]:
    path = Path(f"/sys/fs/bpf/amb-bt-{os.getpid()}-scratch")
    yield path
    programs.unload(path)


def test_the_mirrors_agree_with_the_programs_and_a_drift_is_seen(bpffs: Path) -> None:
    pinned = next((bpffs / "programs").iterdir()) / "pod_egress"
    types = btf.parse(bpfinfo.program_types(pinned))
    assert btf.differences(types) == []
    types.structures["pod_row"] = btf.Structure(24, types.structures["pod_row"].offsets)
    types.enumerations["pod_flag"]["POD_DNS"] = 16
    assert [line.split(":")[0] for line in btf.differences(types)] == ["struct pod_row", "enum pod_flag"]


@pytest.mark.parametrize("loader", ["bcc", "object"])
def test_a_second_start_reuses_what_is_there(scratch: Path, loader: Loader) -> None:
    assert not programs.load(scratch, loader).reused
    with Maps.open(scratch) as tables:
        tables.pods.put(IPv4Address("10.1.2.3"), PodRow(Flag.DNS))
    assert programs.load(scratch, loader).reused
    with Maps.open(scratch) as tables:
        assert list(tables.pods.items().values()) == [PodRow(Flag.DNS)]


def test_an_upgrade_exchanges_the_programs_under_running_traffic(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    client = bench.connect(bench.world.pod, server.address)
    greeting(client)
    (before,) = (bench.bpffs / "programs").iterdir()
    loader: Loader = "bcc" if before.name.endswith("bcc") else "object"
    ids = {bpfsys.link_program(pin) for pin in (bench.bpffs / "pods").glob("*/*")}
    rows = bench.maps.pods.items()
    programs.load(bench.bpffs, OTHER[loader])
    try:
        assert not ids & {bpfsys.link_program(pin) for pin in (bench.bpffs / "pods").glob("*/*")}
        assert not before.exists()
        assert bench.maps.pods.items() == rows
        assert echoed(client, b"the same connection")
        greeting(bench.connect(bench.world.pod, server.address))
    finally:
        programs.load(bench.bpffs, loader)


@pytest.mark.parametrize("loader", ["bcc", "object"])
def test_a_loader_that_is_killed_leaves_nothing_half_done(scratch: Path, tmp_path: Path, loader: Loader) -> None:
    """Killed as soon as it has pinned something; the next load cleans up and succeeds."""
    ensure_bpffs(scratch)
    (scratch / "maps").mkdir(parents=True)
    loading = scratch / "loading-1"
    loading.mkdir()
    directory = sources.source_directory()
    built = tmp_path / "ambient.bpf.o"
    form = tc_sockets.listeners()
    programs.build_object(directory, built, form)
    folders = {"sources": directory, "maps": scratch / "maps", "programs": loading}
    job = {**folders, "object": built, "listeners": form}
    keys = ("sources", "maps", "programs", "listeners") if loader == "bcc" else ("object", "maps", "programs")
    environment = {**os.environ, "PYTHONPATH": f"{directory.parent}:/usr/lib/python3/dist-packages"}
    victim = subprocess.Popen(
        [sys.executable, "-m", f"ambient.datapath.load_{loader}", json.dumps({key: str(job[key]) for key in keys})],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    while victim.poll() is None and not any((scratch / "maps").iterdir()):
        os.sched_yield()
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    with pytest.raises(Unavailable, match="no datapath is loaded"):
        programs.attach_pod(scratch, 0, "pod")
    assert not programs.load(scratch, loader).reused
    assert not loading.exists()
    assert len(list(next((scratch / "programs").iterdir()).iterdir())) == len((*HOOKS, *NODE_HOOKS))


def test_attaching_twice_changes_nothing(bench: Bench) -> None:
    bench.attach(bench.world.pod)
    first = {pin: bpfsys.link_target(pin) for pin in (bench.bpffs / "pods").glob("*/*")}
    pins = programs.attach_pod(bench.bpffs, bench.world.pod.netns, "pod")
    pins += programs.attach_host(bench.bpffs, bench.world.node.netns, "pod", "pod")
    assert {pin: bpfsys.link_target(pin) for pin in pins} == first
    assert len(first) == len(HOOKS)


def test_a_program_that_somebody_put_in_our_links_place_is_seen_and_put_right(bench: Bench, version: int) -> None:
    server = bench.app(bench.world.outside, version)
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    programs_folder = next((bench.bpffs / "programs").iterdir())
    pin = bench.bpffs / "pods" / "pod" / "pod_egress"
    with bpfsys.opened(pin) as link, bpfsys.opened(programs_folder / "host_egress") as foreign:
        bpfsys.update_link(link, foreign, "a stranger")
    found = {one.program: one.alive for one in programs.attached(bench.bpffs)["pod"]}
    assert [program for program, alive in found.items() if not alive] == ["pod_egress"]
    programs.attach_pod(bench.bpffs, bench.world.pod.netns, "pod")
    assert all(one.alive for one in programs.attached(bench.bpffs)["pod"])
    greeting(bench.connect(bench.world.pod, server.address))


def test_detaching_takes_the_programs_off_at_once_and_leaves_nothing(bench: Bench) -> None:
    assert _links(bench) == 0
    bench.attach(bench.world.pod)
    assert _links(bench) == len(HOOKS)
    programs.detach_pod(bench.bpffs, "pod")
    assert _links(bench) == 0
    assert programs.attached(bench.bpffs) == {}
    programs.detach_pod(bench.bpffs, "pod")


def test_pins_of_another_versions_hooks_go_with_the_pod_and_with_everything(bench: Bench) -> None:
    bench.attach(bench.world.pod)
    pins = bench.bpffs / "pods" / "pod"
    (pins / "pod_egress").rename(pins / "pod_hook_of_tomorrow")
    programs.detach_pod(bench.bpffs, "pod")
    assert not pins.exists()
    assert _links(bench) == 0


def _links(bench: Bench) -> int:
    """How many attached links of this machine run our programs of pods; seen by somebody else's eyes."""
    pods = {hook.program for hook in HOOKS}
    ours = {bpfsys.program_id(pin) for pin in (bench.bpffs / "programs").glob("*/*") if pin.name in pods}
    return sum(program in ours for program in link_programs())


def test_links_of_a_pod_that_is_gone_are_dead_and_can_be_cleared(bench: Bench) -> None:
    name = f"{bench.world.prefix}-brief"
    run("ip", "netns", "add", name)
    run(
        "ip",
        "link",
        "add",
        "brief",
        "netns",
        f"{bench.world.prefix}-node",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        name,
    )
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    programs.attach_pod(bench.bpffs, descriptor, "brief")
    programs.attach_host(bench.bpffs, bench.world.node.netns, "brief", "brief")
    assert all(attachment.alive for attachment in programs.attached(bench.bpffs)["brief"])
    run("nsenter", f"--net=/run/netns/{bench.world.prefix}-node", "ip", "link", "del", "brief")
    os.close(descriptor)
    run("ip", "netns", "del", name)
    gone = [attachment for attachment in programs.attached(bench.bpffs)["brief"] if not attachment.alive]
    assert {"pod_egress", "pod_ingress", "host_egress", "host_ingress"} <= {dead.program for dead in gone}
    programs.load(bench.bpffs, "bcc" if next((bench.bpffs / "programs").iterdir()).name.endswith("bcc") else "object")
    programs.detach_pod(bench.bpffs, "brief")
    assert "brief" not in programs.attached(bench.bpffs)


def test_bad_requests_are_refused_by_name(bench: Bench, scratch: Path, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"no such interface: .*eth9"):
        programs.attach_pod(bench.bpffs, bench.world.pod.netns, "pod", "eth9")
    programs.detach_pod(bench.bpffs, "pod")
    for uid in ("", "..", "a/b"):
        with pytest.raises(InvalidInput, match="not a pod uid"):
            programs.attach_pod(bench.bpffs, bench.world.pod.netns, uid)
    with pytest.raises(Unavailable, match="no datapath is loaded"):
        Maps.open(scratch)
    with pytest.raises(KernelError, match="not a bpffs"):
        programs.load(tmp_path, "object")


def test_a_full_map_refuses_the_row_and_keeps_the_others(scratch: Path) -> None:
    programs.load(scratch, "object")
    with Maps.open(scratch) as tables:
        for number in range(16_384):
            tables.pods.put(IPv4Address(0x0A000000 + number), PodRow())
        with pytest.raises(KernelError, match="the kernel refuses a map operation"):
            tables.pods.put(IPv4Address("10.255.0.1"), PodRow())
        assert tables.pods.get(IPv4Address("10.0.0.0")) == PodRow()
