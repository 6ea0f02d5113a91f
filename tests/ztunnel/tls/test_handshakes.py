"""Handshakes beside the loop: where they are computed, in what order, and what is told of them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ambient.errors import ProtocolError
from tests.support.tunnel import run
from ztunnel.tls.handshakes import _BEGUN, Handshakes

Outcome = bool | Exception


class Step:
    """A session whose next step has this outcome, and its owner; `until` holds the step up."""

    def __init__(self, outcome: Outcome = True, until: threading.Event | None = None) -> None:
        self.session = self
        self.outcome = outcome
        self.until = until
        self.thread = 0
        self.told: asyncio.Future[tuple[Outcome, int]] = asyncio.get_running_loop().create_future()

    def handshake(self) -> bool:
        self.thread = threading.get_ident()
        if self.until is not None:
            assert self.until.wait(20)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def shaken(self, outcome: Outcome) -> None:
        self.told.set_result((outcome, threading.get_ident()))


@pytest.mark.parametrize("outcome", [True, False, ProtocolError("TLS handshake", "", "no"), ZeroDivisionError()])
def test_a_step_is_taken_in_another_thread_and_its_outcome_told_in_the_loops(outcome: Outcome) -> None:
    async def scenario() -> None:
        step = Step(outcome)
        Handshakes(asyncio.get_running_loop()).go_on("pod", step)
        assert await step.told == (outcome, threading.get_ident())
        assert step.thread not in (0, threading.get_ident())

    run(scenario)


def test_pods_take_turns_and_the_oldest_of_a_pod_comes_first() -> None:
    async def scenario() -> None:
        here = Handshakes(asyncio.get_running_loop())
        over = threading.Event()
        for _ in range(_BEGUN):
            here.go_on("crowd", Step(until=over))
        order: list[str] = []
        steps = []
        for name in ("crowd 1", "crowd 2", "crowd 3", "other 1", "third 1", "other 2"):
            step = Step()
            step.told.add_done_callback(lambda _, name=name: order.append(name))
            here.go_on(name.split()[0], step)
            steps.append(step.told)
        assert (here.waiting("crowd"), here.waiting("other"), here.waiting("nobody")) == (3, 2, 0)
        over.set()
        await asyncio.gather(*steps)
        assert order == ["crowd 1", "other 1", "third 1", "crowd 2", "other 2", "crowd 3"]
        assert here.waiting("crowd") == 0

    run(scenario)


def test_what_is_not_begun_is_taken_back_and_never_told_of() -> None:
    async def scenario() -> None:
        here = Handshakes(asyncio.get_running_loop())
        over = threading.Event()
        begun, second, waiting, last = Step(until=over), Step(until=over), Step(), Step()
        for step in (begun, second, waiting, last):
            here.go_on("pod", step)
        assert not here.take_back("pod", begun)
        assert not here.take_back("other", waiting)
        assert here.take_back("pod", waiting)
        assert not here.take_back("pod", waiting)
        assert here.waiting("pod") == 1
        over.set()
        await last.told
        assert begun.told.done()
        assert not waiting.told.done()
        assert waiting.thread == 0
        assert not here.take_back("pod", last)

    run(scenario)
