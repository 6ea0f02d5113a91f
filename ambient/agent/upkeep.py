"""Puts back what is missing of pods that are in the mesh, takes away what is nobody's, and says that it had to.

What to do is found by `sweep`; when is the server's. A repair is counted, logged, and kept for an event on the pod.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from typing import Final

from ambient.agent.converge import Convergence, State
from ambient.agent.enrol import Enrol
from ambient.agent.journal import Journal
from ambient.agent.kernel import Kernel
from ambient.agent.metrics import Tally
from ambient.agent.sweep import compare

_SAID: Final = {
    "link": "somebody detached or replaced a program of the mesh on its interface; put back",
    "rules": "somebody changed or deleted the mesh's rules in its network namespace; put back",
    "row": "somebody changed or deleted what the kernel knows of it; put back",
}
_MOST_UNTOLD: Final = 1000

log = logging.getLogger("ambient.agent.upkeep")


class Upkeep:
    """`threads` is that of the steps: nothing is looked at in the middle of one."""

    def __init__(
        self, kernel: Kernel, journal: Journal, convergence: Convergence, tally: Tally, threads: Executor
    ) -> None:
        self._kernel = kernel
        self._journal = journal
        self._convergence = convergence
        self._tally = tally
        self._threads = threads
        self._untold: list[tuple[str, str]] = []

    def untold(self) -> list[tuple[str, str]]:
        """Repairs since the last time that this was asked: uid of the pod and what happened."""
        told, self._untold = self._untold, []
        return told

    async def sweep(self) -> None:
        """Raises MeshError or OSError when the kernel refuses; what was done until then stays done."""
        loop = asyncio.get_running_loop()
        tracked = self._convergence.tracked
        before = {uid for uid, t in tracked.items() if t.state is State.ENROLLED}
        mended = await loop.run_in_executor(self._threads, self._kernel.mend)
        if mended is not None:
            log.error("sweep: %s", mended.words)
            self._tally.count_repair(mended.what)
        attached = await loop.run_in_executor(self._threads, self._kernel.attached)
        enrolled = [uid for uid in before if uid in tracked and tracked[uid].state is State.ENROLLED]
        pods = [t.pod for t in tracked.values()]
        found = compare(self._journal, pods, enrolled, attached, self._kernel.rows())
        for uid in found.orphans:
            log.warning("sweep: pod %s is captured and not ours to keep: taken away", uid)
            await loop.run_in_executor(self._threads, self._kernel.detach, uid)
        for ip in found.stray_rows:
            log.warning("sweep: row of %s belongs to no pod: taken away", ip)
            await loop.run_in_executor(self._threads, self._kernel.delete_row, ip)
        for uid in {*found.loose, *found.wrong_rows}:
            what = self._kernel.captures_by if uid in found.loose else "row"
            log.error("sweep: pod %s: %s", tracked[uid].pod, _SAID[what])
            self._tally.count_repair(what)
            self._untold = [*self._untold, (uid, _SAID[what])][-_MOST_UNTOLD:]
            self._convergence.act([Enrol(tracked[uid].pod)])
