"""Ztunnels and kubelets that come and go, entered in a thread of their own: where rules capture, each such change
writes the table of every pod anew, which the agent's loop would stand still for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ambient.agent.host import Kubelet
from ambient.agent.owners import Owners
from ambient.errors import MeshError

log = logging.getLogger("ambient.agent.owners")


class OwnerChanges:
    """One change after the other, in the order of the calls."""

    def __init__(self, owners: Owners, kubelet: Kubelet) -> None:
        self._owners = owners
        self._kubelet = kubelet
        self._thread = ThreadPoolExecutor(1, "owners")

    async def adopt(self) -> None:
        """Take over what an agent before us has entered, and see whose kubelet it is. Raises MeshError or OSError."""
        await self._do(self._owners.adopt, self._kubelet.look)

    async def admit_ztunnel(self, pid: int) -> None:
        """Returns when its sockets count, wherever that has to be written. Raises MeshError or OSError."""
        await self._do(lambda: self._owners.admit_ztunnel(pid))

    def prune(self) -> None:
        """A ztunnel went: sometime soon those without a process count no more. What fails is left to `look`."""
        self._thread.submit(self._prune)

    async def look(self) -> None:
        """Both, as the sweep does it. Raises MeshError or OSError."""
        await self._do(self._kubelet.look, self._owners.prune)

    def close(self) -> None:
        self._thread.shutdown()

    async def _do(self, *steps: Callable[[], None]) -> None:
        def run() -> None:
            for step in steps:
                step()

        await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _prune(self) -> None:
        try:
            self._owners.prune()
        except (MeshError, OSError) as error:
            log.error("owners: %s", error)
