"""From this version to the next and back, under traffic: rows go along, nothing is dropped, nothing goes in clear."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Literal

import pytest

from ambient.datapath import bpfinfo, bpfsys, load_object, programs, sources
from ambient.datapath.carry import layouts
from ambient.datapath.deny import DenyRow
from ambient.datapath.exchange import Checkpoint, finish, is_as_written, no_checkpoint, schema, stage
from ambient.datapath.layout import Counter, Flag, Option, PodRow, Role, Side
from ambient.datapath.maps import Maps
from ambient.datapath.tc_sockets import listeners
from ambient.errors import KernelError
from ambient.model.address import Endpoint
from tests.support import next_version
from tests.support.capture_bench import Bench, echoed, greeting, used_up
from tests.support.capture_world import GIVE_UP
from tests.support.lab import until
from tests.support.stand_in import StandIn

Loader = Literal["bcc", "object"]
ENOUGH = 8
"""Connections on either side of each exchange."""


@pytest.fixture(scope="session")
def tomorrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next_version.make_next_version(tmp_path_factory.mktemp("tomorrow"))


@pytest.fixture
def scratch() -> Iterator[Path]:
    path = Path(f"/sys/fs/bpf/amb-bt-{os.getpid()}-versions")
    programs.load(path, "object")
    yield path
    programs.unload(path)


def loader_of(bpffs: Path) -> Loader:
    return "bcc" if next((bpffs / "programs").iterdir()).name.endswith("bcc") else "object"


class Traffic:
    """New connections of a pod one after the other, until stopped."""

    def __init__(self, bench: Bench, target: Endpoint) -> None:
        self._bench, self._target = bench, target
        self._stop = threading.Event()
        self.done = 0
        self.failed: list[OSError] = []
        self._thread = threading.Thread(target=self._go)
        self._thread.start()

    def _go(self) -> None:
        while not self._stop.is_set():
            try:
                greeting(self._bench.connect(self._bench.world.pod, self._target, patience=20.0))
                self.done += 1
            except OSError as error:
                self.failed.append(error)

    def more(self) -> None:
        """Wait for some connections that begin from now on."""
        wanted = self.done + ENOUGH
        until("connections go on", lambda: self.done >= wanted or bool(self.failed))

    def stop(self) -> int:
        """How many there were."""
        self._stop.set()
        self._thread.join()
        return self.done


def seen_by(proxy: StandIn) -> int:
    count = 0
    while not proxy.seen.empty():
        proxy.seen.get()
        count += 1
    return count


def test_the_next_version_and_back_under_traffic(bench: Bench, tomorrow: Path) -> None:
    loader = loader_of(bench.bpffs)
    server = bench.app(bench.world.outside, 4)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    old = bench.connect(bench.world.pod, server.address)
    greeting(old)
    rows, before = bench.maps.pods.items(), bpfinfo.map_id(bench.bpffs / "maps" / "pods")
    present = layouts(bench.bpffs / "maps")
    clear = bench.count(Counter.CLEAR_OUT) + bench.count(Counter.CLEAR_IN)
    traffic = Traffic(bench, server.address)
    try:
        traffic.more()
        next_version.load(tomorrow, bench.bpffs, loader)
        traffic.more()
        theirs = layouts(bench.bpffs / "maps")
        assert bpfinfo.map_id(bench.bpffs / "maps" / "pods") != before
        assert theirs["pods"].value.fields[0].name == next_version.FURTHER_MEMBER
        changed = {name for name in theirs if theirs[name] != present.get(name)}
        assert changed == {"pods", "deny_rows", "reservations", "visits"}
        assert is_as_written(bench.bpffs)
        programs.load(bench.bpffs, loader)
        traffic.more()
    finally:
        made = traffic.stop()
        programs.load(bench.bpffs, loader)
    assert traffic.failed == []
    assert seen_by(proxy) == made + 1
    assert echoed(old, b"the same connection, two versions later")
    assert layouts(bench.bpffs / "maps") == present
    with Maps.open(bench.bpffs) as tables:
        assert tables.pods.items() == rows
        counted = tables.counters.read()
        assert counted[Counter.CLEAR_OUT] + counted[Counter.CLEAR_IN] == clear
        for address in rows:
            tables.pods.delete(address)
    links = programs.attached(bench.bpffs)[bench.world.pod.name]
    assert all(link.alive for link in links)


def test_what_one_version_notes_and_the_other_does_not_find_is_never_the_applications(
    bench: Bench, tomorrow: Path, tmp_path: Path
) -> None:
    """Opening packets that only a note leads to ztunnel (their four-tuples are in TIME_WAIT), before each link."""
    theirs, loader = tmp_path / "theirs.o", loader_of(bench.bpffs)
    programs.build_object(tomorrow / "bpf", theirs, listeners())
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    target = Endpoint(bench.world.pod.ip(4), 81)
    ports = list(range(25_660, 25_672))
    between, options = [], []

    def checkpoint(step: str) -> None:
        if step == "links":  # not before: TIME_WAIT is over after a minute
            for port in ports:
                used_up(bench, bench.world.outside, target, port)
                assert proxy.seen.get(timeout=30).source.port == port
            bench.app(bench.world.pod, 4, target.port)
        if not step.startswith("link "):
            return
        between.append(step)
        options.append(bench.maps.config.options())
        with pytest.raises(TimeoutError):
            bench.connect(bench.world.outside, target, source_port=ports.pop(), patience=GIVE_UP)

    try:
        exchange(bench.bpffs, "tomorrow", theirs, checkpoint)
        assert between.index("link pod_ingress") < between.index("link pod_lookup")
        assert all(Option.EXCHANGING in one for one in options)
        assert Option.EXCHANGING not in bench.maps.config.options()
        client = bench.connect(bench.world.outside, target, source_port=ports[0])
        assert greeting(client).port != ports[0], "it is ztunnel that asks the application"
    finally:
        programs.load(bench.bpffs, loader)


def test_rows_of_every_kind_go_along(scratch: Path, tomorrow: Path) -> None:
    row = PodRow(Flag.CAPTURE_OUT | Flag.DNS, epoch=0xFFFFFFFE, host_ifindex=7)
    pod = IPv4Address("10.1.2.3")
    remote = Endpoint(ip_address("10.9.9.9"), 4433)
    with Maps.open(scratch) as tables:
        tables.pods.put(pod, row)
        tables.owners.put(4711, Role.KUBELET)
        tables.clear.admit(Endpoint(pod, 80), remote)
        tables.deny.replace({(pod, Side.IN): [DenyRow(80, (0, 0))]})
    kept = {name: bpfinfo.map_id(scratch / "maps" / name) for name in ("clear", "looped", "owners", "seed")}
    written = schema(scratch)
    next_version.load(tomorrow, scratch, "object")
    assert {name: bpfinfo.map_id(scratch / "maps" / name) for name in kept} == kept
    theirs = bpfsys.Map(scratch / "maps" / "pods", 16, 24)
    assert [theirs.get(key) for key in theirs.walk()] == [bytes(4) + _packed(row)]
    theirs.close()
    assert schema(scratch) != written
    programs.load(scratch, "object")
    assert schema(scratch) == written
    with Maps.open(scratch) as tables:
        assert tables.pods.items() == {pod: row}
        assert tables.owners.items() == {4711: Role.KUBELET}
        assert tables.deny.tables() == []


def _packed(row: PodRow) -> bytes:
    numbers = (row.flags, row.fail_in, row.fail_out, row.host_ifindex, row.epoch)
    return b"".join(number.to_bytes(4, "little") for number in numbers)


class _Killed(BaseException):
    """Nothing catches it."""


def test_ended_before_any_step_of_an_exchange_the_next_start_has_a_whole_version(
    scratch: Path, tomorrow: Path, tmp_path: Path
) -> None:
    """The last step on the way back is one of each kind there is: the first and the last of those that are repeated
    for each map or program."""
    row = PodRow(Flag.CAPTURE_OUT, epoch=3)
    with Maps.open(scratch) as tables:
        tables.pods.put(IPv4Address("10.1.2.3"), row)
    written, version = schema(scratch), next((scratch / "programs").iterdir()).name
    ours, theirs = tmp_path / "ours.o", tmp_path / "theirs.o"
    programs.build_object(sources.source_directory(), ours, listeners())
    programs.build_object(tomorrow / "bpf", theirs, listeners())
    steps: list[str] = []
    exchange(scratch, "tomorrow", theirs)
    assert not ended_at(scratch, version, ours, steps, 1_000_000)
    kinds = [step.partition(" ")[0] for step in steps]
    tried = {kinds.index(kind) for kind in kinds} | {len(kinds) - 1 - kinds[::-1].index(kind) for kind in kinds}
    assert {"load", "carry pods", "whole", "links", "linked", "map visits", "pin pods", "programs", "end"} <= {*steps}
    for last in sorted(tried):
        exchange(scratch, "tomorrow", theirs)
        assert schema(scratch) != written
        steps.clear()
        assert ended_at(scratch, version, ours, steps, last)
        # Whoever comes next brings it to its end if it was whole, and else begins anew.
        exchange(scratch, version, ours)
        assert [entry.name for entry in (scratch / "programs").iterdir()] == [version]
        assert schema(scratch) == written
        assert is_as_written(scratch)
        assert {entry.name for entry in scratch.iterdir()} == {"maps", "programs", "pods", "schema"}
        with Maps.open(scratch) as tables:
            assert tables.pods.items() == {IPv4Address("10.1.2.3"): row}


def exchange(bpffs: Path, version: str, built: Path, checkpoint: Checkpoint = no_checkpoint) -> None:
    """As `programs.load` does it, in this process."""
    finish(bpffs, checkpoint)
    if not (bpffs / "programs" / version).is_dir():
        stage(bpffs, version, partial(load_object.load, built), checkpoint)
        finish(bpffs, checkpoint)


def ended_at(bpffs: Path, version: str, built: Path, steps: list[str], last: int) -> bool:
    def checkpoint(step: str) -> None:
        steps.append(step)
        if len(steps) > last:
            raise _Killed

    try:
        exchange(bpffs, version, built, checkpoint)
    except _Killed:
        return True
    return False


def test_a_map_that_somebody_pinned_in_place_of_ours_is_found_and_ours_comes_back(scratch: Path) -> None:
    with Maps.open(scratch) as tables:
        tables.pods.put(IPv4Address("10.1.2.3"), PodRow(Flag.DNS))
    ours = bpfinfo.map_id(scratch / "maps" / "pods")
    (scratch / "maps" / "pods").unlink()
    with bpfsys.opened(scratch / "maps" / "owners") as foreign:
        bpfsys.pin(foreign, scratch / "maps" / "pods")
    assert programs.load(scratch, "object").reused
    assert bpfinfo.map_id(scratch / "maps" / "pods") == ours
    with Maps.open(scratch) as tables:
        assert tables.pods.items() == {IPv4Address("10.1.2.3"): PodRow(Flag.DNS)}


def test_maps_that_are_not_as_was_written_down_are_made_again(scratch: Path) -> None:
    (scratch / "maps" / "deny_rows").unlink()
    assert not is_as_written(scratch)
    assert not programs.load(scratch, "object").reused
    assert is_as_written(scratch)
    assert (scratch / "maps" / "deny_rows").exists()


def test_what_does_not_fit_keeps_the_version_that_was_there(scratch: Path, tmp_path: Path) -> None:
    """A next version whose map of pods has room for one only."""
    tree = next_version.make_next_version(tmp_path)
    header = tree / "bpf" / "maps" / "pods.h"
    header.write_text(header.read_text().replace("16384", "1"))
    with Maps.open(scratch) as tables:
        for number in range(2):
            tables.pods.put(IPv4Address("10.1.2.3") + number, PodRow(Flag.DNS))
    before = {path: bpfinfo.map_id(path) for path in (scratch / "maps").iterdir()}
    running = list((scratch / "programs").iterdir())
    with pytest.raises(Exception, match="exit status 1"):
        next_version.load(tree, scratch, "object")
    assert {path: bpfinfo.map_id(path) for path in (scratch / "maps").iterdir()} == before
    assert list((scratch / "programs").iterdir()) == running
    assert not list(scratch.glob("loading-*"))
    assert programs.load(scratch, "object").reused


def test_a_map_kept_in_sockets_is_never_changed(scratch: Path, tmp_path: Path) -> None:
    tree = next_version.make_next_version(tmp_path)
    header = tree / "bpf" / "maps" / "looped.h"
    text = header.read_text()
    assert text.count("int, __u32, looped") == 1
    header.write_text(text.replace("int, __u32, looped", "int, __u64, looped").replace("value, __u32", "value, __u64"))
    with pytest.raises(Exception, match="exit status 1") as refused:
        next_version.load(tree, scratch, "object")
    assert "give the new map another name" in str(getattr(refused.value, "stderr", ""))
    with pytest.raises(KernelError, match="another layout"):
        bpfsys.Map(scratch / "maps" / "looped", 4, 8)
