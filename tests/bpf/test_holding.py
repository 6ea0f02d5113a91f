"""Who sweeps bpffs while the agent lives takes nothing off; what he unpinned is pinned again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.datapath import exchange, programs
from ambient.datapath.holding import Holding
from ambient.datapath.hooks import HOOKS
from ambient.datapath.layout import Counter
from tests.support.capture_bench import Bench, greeting
from tests.support.lab import until


def sweep(folder: Path, uid: str) -> None:
    for pin in (folder / "pods" / uid).iterdir():
        pin.unlink()
    (folder / "pods" / uid).rmdir()


@pytest.fixture
def holding(bench: Bench) -> Iterator[Holding]:
    made = Holding(bench.bpffs)
    yield made
    made.close()


def captured(bench: Bench, version: int) -> bool:
    """Whether a connection of the pod is handed to ztunnel's stand-in."""
    server = bench.app(bench.world.outside, version)
    before = bench.count(Counter.REDIRECTED_OUT)
    greeting(bench.connect(bench.world.pod, server.address))
    return bench.count(Counter.REDIRECTED_OUT) == before + 1


def test_programs_stay_on_and_are_pinned_again(bench: Bench, holding: Holding, version: int) -> None:
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    holding.take(bench.world.pod.name)
    assert captured(bench, version)
    sweep(bench.bpffs, bench.world.pod.name)
    assert captured(bench, version)
    assert len(holding.restore()) == len(HOOKS)
    attached = programs.attached(bench.bpffs)[bench.world.pod.name]
    assert all(one.alive for one in attached)
    assert len(attached) == len(HOOKS)
    assert holding.restore() == []


def test_what_was_written_of_the_layout_is_written_again(bench: Bench, holding: Holding) -> None:
    (written,) = (bench.bpffs / exchange.SCHEMA).iterdir()
    written.rmdir()
    written.parent.rmdir()
    assert holding.restore() == []
    assert [*written.parent.iterdir()] == [written]


def test_sabotage_without_holding_them_a_sweep_ends_capture(bench: Bench, holding: Holding, version: int) -> None:
    bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    assert captured(bench, version)
    sweep(bench.bpffs, bench.world.pod.name)
    until("capture ends, as the kernel lets go of the links", lambda: not captured(bench, version))
    assert holding.restore() == []
