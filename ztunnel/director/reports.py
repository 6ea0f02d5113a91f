"""Asking every worker for its open connections and waiting a moment for the answers (config dump, drain)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ztunnel.director.workers import Crew, Worker
from ztunnel.ipc.messages import LiveConnection, Report, ReportAsk

WAIT_S: Final = 1.0


class Reports:
    """One question may be out at a time per caller; answers are matched by number."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.wait_s = WAIT_S
        self._number = 0
        self._waiting: dict[int, set[int]] = {}
        self._found: dict[int, dict[str, list[LiveConnection]]] = {}
        self._changed = asyncio.Event()

    async def connections(self) -> dict[str, list[LiveConnection]]:
        """Open connections per pod uid, of every worker that answered in time."""
        self._number += 1
        ask = self._number
        self._found[ask] = {}
        self._waiting[ask] = {worker.pid for worker in self._crew.everyone()}
        for worker in self._crew.everyone():
            worker.send(ReportAsk(ask=ask))
        await self._until(lambda: not self._waiting[ask], self.wait_s)
        del self._waiting[ask]
        return self._found.pop(ask)

    async def drained(self, wait_s: float) -> None:
        """Until every worker has said Drained or left, at most `wait_s` seconds."""
        await self._until(lambda: all(worker.drained for worker in self._crew.everyone()), wait_s)

    def arrived(self, worker: Worker, report: Report) -> None:
        """A worker's answer; one that comes too late is ignored."""
        if report.ask in self._waiting:
            self._waiting[report.ask].discard(worker.pid)
            for uid, connections in report.connections.items():
                self._found[report.ask].setdefault(uid, []).extend(connections)
            self._wake()

    def left(self, worker: Worker) -> None:
        """Nobody waits for this worker any more."""
        for pids in self._waiting.values():
            pids.discard(worker.pid)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, done: Callable[[], bool], wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                while not done():
                    await self._changed.wait()
        except TimeoutError:
            return
