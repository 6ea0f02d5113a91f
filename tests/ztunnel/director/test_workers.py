"""Who may be a worker, and what the socket of the director lets through."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from ambient.errors import Unavailable
from tests.support.fake_worker import FakeWorker
from tests.support.waiting import eventually
from ztunnel.director.reports import Reports
from ztunnel.director.workers import Crew, Worker
from ztunnel.ipc.channel import Channel
from ztunnel.ipc.messages import LiveConnection, PodGone, Report, ReportAsk, ToDirector


class Owner:
    def __init__(self) -> None:
        self.joined: list[int] = []
        self.left: list[int] = []
        self.said: list[object] = []
        self.reports: Reports | None = None

    def worker_joined(self, worker: Worker) -> None:
        self.joined.append(worker.pid)

    def worker_left(self, worker: Worker) -> None:
        self.left.append(worker.pid)
        if self.reports is not None:
            self.reports.left(worker)

    def worker_said(self, worker: Worker, message: ToDirector, fds: list[int]) -> None:
        self.said.append(message)
        assert fds == []
        if self.reports is not None and isinstance(message, Report):
            self.reports.arrived(worker, message)


def test_the_socket_is_ours_alone_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "run" / "director.sock"
        for _ in range(2):
            crew = Crew(str(path), Owner())
            crew.listen()
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.parent.stat().st_mode & 0o777 == 0o700
            crew.close()
        with pytest.raises(Unavailable):
            Crew("/proc/none/director.sock", Owner()).listen()

    asyncio.run(scenario())


def test_a_worker_joins_speaks_and_leaves(tmp_path: Path) -> None:
    async def scenario() -> None:
        owner = Owner()
        crew = Crew(str(tmp_path / "s"), owner)
        crew.listen()
        worker = FakeWorker(str(tmp_path / "s"), 0, 11).connect()
        worker.say(PodGone(uid="x"))
        await eventually(lambda: owner.said == [PodGone(uid="x")])
        assert [one.pid for one in crew] == owner.joined == [11]
        worker.die()
        await eventually(lambda: owner.left == [11])
        assert list(crew) == []
        crew.close()

    asyncio.run(scenario())


def test_who_does_not_begin_with_hello_is_hung_up_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        owner = Owner()
        crew = Crew(str(tmp_path / "s"), owner)
        crew.listen()
        closed: list[bool] = []
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(tmp_path / "s"))
        read, write = os.pipe()
        loop = asyncio.get_running_loop()
        channel = Channel(loop, sock, lambda _message, _fds: None, lambda: closed.append(True))
        channel.send(PodGone(uid="x"), [write])
        await eventually(lambda: closed)
        os.close(write)
        assert os.read(read, 1) == b""
        os.close(read)
        assert owner.joined == owner.left == []
        crew.close()

    asyncio.run(scenario())


def test_reports_of_all_workers_are_joined_and_the_dead_are_not_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        owner = Owner()
        crew = Crew(str(tmp_path / "s"), owner)
        owner.reports = Reports(crew)
        crew.listen()
        one, two = (FakeWorker(str(tmp_path / "s"), slot, slot + 1).connect() for slot in range(2))
        await eventually(lambda: len(list(crew)) == 2)
        asking = asyncio.ensure_future(owner.reports.connections())
        ask = (await one.hears(ReportAsk)).ask
        live = LiveConnection(direction="inbound", src="a", original_dst="", actual_dst="b", protocol="TCP")
        one.say(Report(ask=ask, connections={"uid": [live]}))
        one.say(Report(ask=ask + 99, connections={"uid": [live]}))
        two.die()
        assert await asking == {"uid": [live]}
        one.die()
        crew.close()

    asyncio.run(scenario())
