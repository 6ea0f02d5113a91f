"""Sockets at both ends are ended in a thread; who asks hears "not yet" until none is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from ambient.agent.direct_sockets import PodSockets
from ambient.agent.podns import PodNetns
from ambient.datapath.sockets import TcpSocket, TcpState
from ambient.errors import KernelError
from ambient.model.address import PROXY_MARK, IpAddress
from tests.support.agent_fakes import FakeKernel, until
from tests.support.direct import CLIENT, ENDS, ONE, SERVER

NAMESPACES = {CLIENT: PodNetns(-1, 1, "client"), SERVER: PodNetns(-1, 2, "server")}


@dataclass
class Kernel(FakeKernel):
    """Two namespaces with the two ends of ONE and a bystander each."""

    tcp: dict[int, list[TcpSocket]] = field(default_factory=dict)
    broken: bool = False
    held: threading.Event = field(default_factory=threading.Event)
    looking: bool = False

    def __post_init__(self) -> None:
        end = TcpSocket(family=2, state=TcpState.ESTABLISHED, local=ONE.source, remote=ONE.destination, cookie=1)
        other = replace(end, local=ONE.destination, remote=ONE.source, cookie=2)
        bystander = replace(end, remote=replace(ONE.destination, port=81), cookie=3)
        self.tcp = {1: [end, bystander], 2: [other]}
        self.held.set()

    def sockets(self, netns: PodNetns) -> list[TcpSocket]:
        self.looking = True
        found = [*self.tcp[netns.cookie]]
        assert self.held.wait(30)
        return found

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
        assert not sockets.end(ENDS)
        await until(lambda: sockets.end(ENDS))
        assert [one.cookie for left in kernel.tcp.values() for one in left] == [3]

    asyncio.run(run())


def test_what_cannot_be_ended_is_not_called_gone() -> None:
    async def run() -> None:
        kernel = Kernel(broken=True)
        sockets = pod_sockets(kernel, NAMESPACES)
        for _ in range(3):
            assert not sockets.end(ENDS)
            await until(lambda: sockets._task is not None and sockets._task.done())
        kernel.broken = False
        await until(lambda: sockets.end(ENDS))

    asyncio.run(run())


def test_looking_ends_nothing() -> None:
    async def run() -> None:
        kernel = Kernel()
        sockets = pod_sockets(kernel, NAMESPACES)
        assert not sockets.gone(ENDS)
        await until(lambda: sockets._task is not None and sockets._task.done())
        assert not sockets.gone(ENDS)
        assert sum(map(len, kernel.tcp.values())) == 3

    asyncio.run(run())


def test_an_answer_about_a_connection_that_is_over_is_not_taken_for_the_next_one_of_its_four_tuple() -> None:
    async def run() -> None:
        kernel = Kernel()
        there, kernel.tcp = kernel.tcp, {1: [], 2: []}
        sockets = pod_sockets(kernel, NAMESPACES)
        assert not sockets.gone(ENDS)
        await until(lambda: sockets._task is not None and sockets._task.done())
        sockets.forget(ONE)
        kernel.tcp = there
        for _ in range(2):
            assert not sockets.gone(ENDS)
            await until(lambda: sockets._task is not None and sockets._task.done())

    asyncio.run(run())


def test_an_answer_that_is_under_way_when_the_next_one_of_its_four_tuple_asks_is_not_its_own() -> None:
    """The thread has found none for the first; before it says so the second begins, has one, and is asked about."""

    async def run() -> None:
        kernel = Kernel()
        there, kernel.tcp = kernel.tcp, {1: []}
        sockets = pod_sockets(kernel, {CLIENT: NAMESPACES[CLIENT]})
        kernel.held.clear()
        assert not sockets.gone(ENDS)
        await until(lambda: kernel.looking)
        sockets.forget(ONE)
        kernel.tcp = there
        second = ENDS._replace(opened_s=ENDS.opened_s + 1)
        assert not sockets.gone(second)
        kernel.held.set()
        await until(lambda: sockets._task is not None and sockets._task.done())
        assert not sockets.gone(second)

    asyncio.run(run())


def test_a_socket_of_that_four_tuple_that_is_another_connections_is_left_alone_and_is_none_of_its_own() -> None:
    async def run() -> None:
        kernel = Kernel()
        sockets = pod_sockets(kernel, NAMESPACES)
        older = ENDS._replace(client=77, server=78)
        assert not sockets.end(older)
        await until(lambda: sockets.end(older))
        assert sorted(one.cookie for left in kernel.tcp.values() for one in left) == [1, 2, 3]
        its_own = ENDS._replace(client=1, server=2)
        assert not sockets.end(its_own)
        await until(lambda: sockets.end(its_own))
        assert [one.cookie for left in kernel.tcp.values() for one in left] == [3]

    asyncio.run(run())


def test_ztunnels_socket_that_speaks_as_the_client_is_never_an_end() -> None:
    async def run() -> None:
        kernel = Kernel()
        kernel.tcp = {number: [replace(one, mark=PROXY_MARK) for one in its] for number, its in kernel.tcp.items()}
        sockets = pod_sockets(kernel, NAMESPACES)
        assert not sockets.end(ENDS)
        await until(lambda: sockets.end(ENDS))
        assert sum(map(len, kernel.tcp.values())) == 3

    asyncio.run(run())


def test_a_pod_that_is_no_more_has_no_sockets() -> None:
    async def run() -> None:
        sockets = pod_sockets(Kernel(), {})
        assert not sockets.gone(
            ENDS._replace(tuple=ONE._replace(source=replace(ONE.source, ip=ip_address("10.0.0.9"))))
        )
        assert not sockets.end(ENDS)
        await until(lambda: sockets.end(ENDS))

    asyncio.run(run())
