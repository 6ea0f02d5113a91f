"""Ending what policy forbids, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ambient.agent.journal import OlderConnection
from ambient.agent.metrics import Tally
from ambient.agent.podns import PodNetns
from ambient.agent.watch_older import OlderConnections
from ambient.datapath.sockets import TcpSocket, TcpState
from ambient.errors import KernelError
from ambient.model.address import parse_endpoint
from ambient.model.outcome import Allowed, Connection, Denied, Reason, Verdict
from tests.support.agent_fakes import FakeKernel, Node, target

INBOUND = OlderConnection(1, "10.0.0.5:80", "10.0.0.9:4000", inbound=True)
OUTBOUND = OlderConnection(2, "10.0.0.5:40000", "10.0.0.9:80", inbound=False)
ENDED = OlderConnection(3, "10.0.0.5:80", "10.0.0.9:4001", inbound=True)


def sock(connection: OlderConnection) -> TcpSocket:
    return TcpSocket(
        family=socket.AF_INET,
        state=TcpState.ESTABLISHED,
        local=parse_endpoint(connection.local),
        remote=parse_endpoint(connection.remote),
        cookie=connection.cookie,
    )


class Kernel(FakeKernel):
    """Holds the first two of the older connections open; the third has ended since."""

    def __init__(self) -> None:
        super().__init__(older=(INBOUND, OUTBOUND, ENDED))
        self.living = [sock(INBOUND), sock(OUTBOUND)]

    def sockets(self, netns: PodNetns) -> list[TcpSocket]:
        super().sockets(netns)
        return list(self.living)

    def end(self, netns: PodNetns, targets: Iterable[TcpSocket]) -> list[TcpSocket]:
        ended = super().end(netns, targets)
        self.living = [one for one in self.living if one not in ended]
        return ended


class Bench:
    def __init__(self, directory: Path) -> None:
        self.kernel = Kernel()
        self.node = Node(directory)
        self.node.kernel = self.kernel
        self.node.restart()
        asyncio.run(self.node.applier.enrol(target()))
        self.tally = Tally()
        self.verdict: Verdict | None = Allowed(Reason.NO_ALLOW_POLICY)
        self.threads = ThreadPoolExecutor(1)

    def older(self, patience_s: float = 30.0) -> OlderConnections:
        return OlderConnections(
            self.kernel,
            self.node.journal,
            self.node.applier.open,
            self._judge_of,
            self.tally,
            self.threads,
            patience_s=patience_s,
        )

    def _judge_of(self, _pod: object) -> Callable[[Connection], Verdict] | None:
        verdict = self.verdict
        return None if verdict is None else lambda connection: verdict

    def cookies(self) -> list[int]:
        return [one.cookie for one in self.kernel.living]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "pods")
    yield made
    made.threads.shutdown()
    made.node.close()


def test_what_has_ended_is_forgotten(bench: Bench) -> None:
    async def body() -> None:
        live = await bench.older().listing("uid-web")
        assert [one.connection for one in live] == [INBOUND, OUTBOUND]

    asyncio.run(body())
    entry = bench.node.journal.get("uid-web")
    assert entry is not None
    assert entry.older == (INBOUND, OUTBOUND)


@pytest.mark.parametrize("verdict", [Allowed(Reason.NO_ALLOW_POLICY), None])
def test_what_policy_allows_or_does_not_know_yet_is_left_alone(bench: Bench, verdict: Verdict | None) -> None:
    bench.verdict = verdict
    asyncio.run(bench.older().judge())
    assert bench.cookies() == [1, 2]
    assert bench.tally.cut == {}


def test_only_the_inbound_connection_that_policy_forbids_is_ended(bench: Bench) -> None:
    bench.verdict = Denied(Reason.DENIED_BY, "shop/no")
    asyncio.run(bench.older().judge())
    assert bench.cookies() == [2]
    assert bench.tally.cut == {"policy": 1}


@pytest.mark.parametrize(("patience_s", "left"), [(30.0, [1, 2]), (0.0, [2])])
def test_a_policy_that_has_not_arrived_gets_time_to_arrive(bench: Bench, patience_s: float, left: list[int]) -> None:
    bench.verdict = Denied(Reason.POLICY_NOT_RECEIVED, "shop/late")
    asyncio.run(bench.older(patience_s).judge())
    assert bench.cookies() == left


def test_all_can_be_ended_on_request(bench: Bench) -> None:
    async def body() -> None:
        assert await bench.older().cut("uid-web") == 2
        assert await bench.older().cut("uid-web") == 0
        assert await bench.older().cut("uid-stranger") == 0

    asyncio.run(body())
    assert bench.cookies() == []
    assert bench.tally.cut == {"request": 2}


def test_a_connection_that_cannot_be_ended_does_not_stop_the_watch(bench: Bench) -> None:
    async def body() -> None:
        older = bench.older()
        bench.verdict = Denied(Reason.DENIED_BY, "shop/no")
        bench.kernel.fail["end"] = KernelError("no")
        await older.judge()
        assert bench.cookies() == [1, 2]
        bench.kernel.fail.clear()
        await older.judge()
        assert bench.cookies() == [2]

    asyncio.run(body())


def test_who_no_longer_waits_for_a_policy_is_not_remembered(bench: Bench) -> None:
    async def body() -> None:
        older = bench.older(0.0005)
        bench.verdict = Denied(Reason.POLICY_NOT_RECEIVED, "shop/late")
        await older.judge()
        assert set(older._missing) == {INBOUND.cookie, ENDED.cookie}
        bench.verdict = Allowed(Reason.NO_ALLOW_POLICY)
        await older.judge()
        assert older._missing == {}
        # A policy that goes missing again has its second again.
        older._patience_s = 30.0
        bench.verdict = Denied(Reason.POLICY_NOT_RECEIVED, "shop/late")
        await older.judge()
        assert INBOUND.cookie in bench.cookies()

    asyncio.run(body())
