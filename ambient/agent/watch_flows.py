"""Keeps the program that sees the node's sockets where it belongs, and takes in the sheets on which the kernel adds up
flows: few lines for many connections, so that a busy node costs no more than a quiet one.

May not tell of single TCP connections: that is `watch_packets`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Final, Protocol

from ambient.agent.flow_totals import FlowTotals
from ambient.agent.metrics import Tally
from ambient.agent.naming import WorkloadAt
from ambient.agent.talks import Talks
from ambient.datapath.tallies import Line
from ambient.errors import MeshError
from ambient.flows.record import Flow

INTERVAL_S: Final = 5.0

log = logging.getLogger("ambient.agent.flows")


class Sheets(Protocol):
    """tallies.h, as `ambient.datapath.tallies` has it."""

    def take(self) -> list[Line]: ...


class Flows:
    """`attach` puts the node's programs in place and says whether one was missing; `tell` takes records of talks."""

    def __init__(
        self,
        sheets: Sheets,
        attach: Callable[[], bool],
        workload: WorkloadAt,
        tally: Tally,
        threads: Executor,
        talks: Talks,
        tell: Callable[[Iterable[Flow]], None],
    ) -> None:
        self._talks = talks
        self._tell = tell
        self._sheets = sheets
        self._attach = attach
        self._workload = workload
        self._tally = tally
        self._threads = threads
        self._placed = False
        self._said = ""
        self.totals = FlowTotals()

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """Once: what is missing is put back, what was written is added up. What fails is tried again, and said once."""
        try:
            lines = await asyncio.get_running_loop().run_in_executor(self._threads, self._take)
        except (MeshError, OSError) as error:
            if str(error) != self._said:
                log.error("flows of the node are not counted: %s", error)
            self._said = str(error)
            return
        self._said = ""
        self.totals.add(lines, self._workload)
        self._tell(self._talks.take(lines))
        self._tally.talks_untold = self._talks.untold

    def _take(self) -> list[Line]:
        lines = self._sheets.take()  # there is a sheet before there is somebody to write on it
        if self._attach() and self._placed:
            log.error("the program that sees the node's sockets was missing or changed: put back")
            self._tally.count_repair("link")
        self._placed = True
        return lines
