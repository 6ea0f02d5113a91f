"""Sockets at both ends are ended in a thread; who asks hears "not yet" until none is left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from ambient.agent.direct_sockets import PodSockets
from ambient.agent.podns import PodNetns
from ambient.datapath.sockets import TcpSocket, TcpState
from ambient.errors import KernelError
from ambient.model.address import IpAddress
from tests.support.agent_fakes import FakeKernel, until
from tests.support.direct import CLIENT, ONE, SERVER

NAMESPACES = {CLIENT: PodNetns(-1, 1, "client"), SERVER: PodNetns(-1, 2, "server")}


@dataclass
class Kernel(FakeKernel):
    """Two namespaces with the two ends of ONE and a bystander each."""

    tcp: dict[int, list[TcpSocket]] = field(default_factory=dict)
    broken: bool = False

    def __post_init__(self) -> None:
        end = TcpSocket(family=2, state=TcpState.ESTABLISHED, local=ONE.source, remote=ONE.destination, cookie=1)
        other = replace(end, local=ONE.destination, remote=ONE.source, cookie=2)
        bystander = replace(end, remote=replace(ONE.destination, port=81), cookie=3)
        self.tcp = {1: [end, bystander], 2: [other]}

    def sockets(self, netns: PodNetns) -> list[TcpSocket]:
        return [*self.tcp[netns.cookie]]

    def end(self, netns: PodNetns, targets: Iterable[TcpSocket]) -> list[TcpSocket]:
        if self.broken:
            raise KernelError("no", "here")
        ended = [*targets]
        self.tcp[netns.cookie] = [one for one in self.tcp[netns.cookie] if one not in ended]
        return ended


def pod_sockets(kernel: Kernel, namespaces: dict[IpAddress, PodNetns]) -> PodSockets:
    return PodSockets(kernel, namespaces.get, ThreadPoolExecutor(1))


def test_both_ends_are_ended_and_nobody_else() -> None:
    async def run() -> None:
        kernel = Kernel()
        sockets = pod_sockets(kernel, NAMESPACES)
        assert not sockets.end(ONE)
        await until(lambda: sockets.end(ONE))
        assert [one.cookie for left in kernel.tcp.values() for one in left] == [3]

    asyncio.run(run())


def test_what_cannot_be_ended_is_not_called_gone() -> None:
    async def run() -> None:
        kernel = Kernel(broken=True)
        sockets = pod_sockets(kernel, NAMESPACES)
        for _ in range(3):
            assert not sockets.end(ONE)
            await until(lambda: sockets._task is not None and sockets._task.done())
        kernel.broken = False
        await until(lambda: sockets.end(ONE))

    asyncio.run(run())


def test_looking_ends_nothing() -> None:
    async def run() -> None:
        kernel = Kernel()
        sockets = pod_sockets(kernel, NAMESPACES)
        assert not sockets.gone(ONE)
        await until(lambda: sockets._task is not None and sockets._task.done())
        assert not sockets.gone(ONE)
        assert sum(map(len, kernel.tcp.values())) == 3

    asyncio.run(run())


def test_an_answer_about_a_connection_that_is_over_is_not_taken_for_the_next_one_of_its_four_tuple() -> None:
    async def run() -> None:
        kernel = Kernel()
        there, kernel.tcp = kernel.tcp, {1: [], 2: []}
        sockets = pod_sockets(kernel, NAMESPACES)
        assert not sockets.gone(ONE)
        await until(lambda: sockets._task is not None and sockets._task.done())
        sockets.forget(ONE)
        kernel.tcp = there
        for _ in range(2):
            assert not sockets.gone(ONE)
            await until(lambda: sockets._task is not None and sockets._task.done())

    asyncio.run(run())


def test_a_pod_that_is_no_more_has_no_sockets() -> None:
    async def run() -> None:
        sockets = pod_sockets(Kernel(), {})
        assert not sockets.gone(ONE._replace(source=replace(ONE.source, ip=ip_address("10.0.0.9"))))
        assert not sockets.end(ONE)
        await until(lambda: sockets.end(ONE))

    asyncio.run(run())
