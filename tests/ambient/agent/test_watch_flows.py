"""Sheets of tallies are taken in again and again; what fails is said once, what is missing is put back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from ambient.agent.metrics import Tally
from ambient.agent.talks import QUIET_S, Talks
from ambient.agent.watch_flows import Flows
from ambient.datapath.tallies import Line
from ambient.errors import KernelError
from ambient.flows.record import Flow
from tests.support.told_flows import WORKLOADS, line


@dataclass
class Scene:
    threads: ThreadPoolExecutor
    written: list[Line] = field(default_factory=list)
    missing: bool = True
    broken: str = ""
    tally: Tally = field(default_factory=Tally)
    told: list[Flow] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.flows = Flows(
            self,
            self.attach,
            WORKLOADS.get,
            self.tally,
            self.threads,
            Talks("n1", WORKLOADS.get, lambda: self.now),
            self.told.extend,
        )

    def take(self) -> list[Line]:
        if self.broken:
            raise KernelError(self.broken)
        found, self.written = self.written, []
        return found

    def attach(self) -> bool:
        was, self.missing = self.missing, False
        return was

    def look(self) -> None:
        asyncio.run(self.flows.look())


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ThreadPoolExecutor(1) as threads:
        yield Scene(threads)


def test_what_was_written_is_added_up(scene: Scene) -> None:
    for _ in range(3):
        scene.written = [line()]
        scene.look()
    assert any(sample.endswith(" 3") for sample in scene.flows.totals.series() if "ambient_flows_total" in sample)


def test_a_talk_that_is_over_is_told(scene: Scene) -> None:
    scene.written = [line(protocol=17)]
    scene.look()
    scene.now += QUIET_S
    scene.look()
    assert [flow.protocol for flow in scene.told] == ["udp"]


def test_a_program_that_was_taken_off_is_put_back_and_counted(scene: Scene) -> None:
    scene.look()
    assert scene.tally.repairs == {}, "there was none yet"
    scene.missing = True
    scene.look()
    assert not scene.missing
    assert scene.tally.repairs == {"link": 1}


def test_a_kernel_that_refuses_is_told_of_once_and_asked_again(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        scene.broken = "no room"
        scene.look()
        scene.look()
        scene.broken = ""
        scene.written = [line()]
        scene.look()
    assert [record.message for record in caplog.records] == ["flows of the node are not counted: no room"]
    assert any("ambient_flows_total{" in sample for sample in scene.flows.totals.series())
