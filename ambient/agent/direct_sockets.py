"""The sockets at both ends of a connection on the kernel path: whether they are there, and their end.

Listing sockets is for a thread; who asks gets an answer at once, which is "not yet" until a thread has been there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from ambient.agent.kernel import Kernel
from ambient.agent.podns import PodNetns
from ambient.datapath.direct import Tuple
from ambient.datapath.sockets import TcpSocket
from ambient.errors import MeshError
from ambient.model.address import IpAddress

log = logging.getLogger("ambient.agent.direct")


class PodSockets:
    """`netns_of` gives the namespace of the pod with an address, None when there is no such pod (any more)."""

    def __init__(self, kernel: Kernel, netns_of: Callable[[IpAddress], PodNetns | None], threads: Executor) -> None:
        self._kernel = kernel
        self._netns_of = netns_of
        self._threads = threads
        self._awaited: set[Tuple] = set()
        self._to_end: set[Tuple] = set()
        self._to_see: set[Tuple] = set()
        self._none: set[Tuple] = set()
        self._task: asyncio.Task[None] | None = None

    def end(self, one: Tuple) -> bool:
        """True once there are none; until then they are being ended."""
        return self._asked(one, self._to_end)

    def gone(self, one: Tuple) -> bool:
        """True when a look since the last call found none."""
        return self._asked(one, self._to_see)

    def forget(self, one: Tuple) -> None:
        """Its connection is over: what is still to be answered would be about another one of this four-tuple."""
        for waiting in (self._awaited, self._to_end, self._to_see, self._none):
            waiting.discard(one)

    def _asked(self, one: Tuple, waiting: set[Tuple]) -> bool:
        if one in self._none:
            self._none.discard(one)
            return True
        self._awaited.add(one)
        waiting.add(one)
        self._begin()
        return False

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._to_end or self._to_see:
            ending, seeing = self._to_end, self._to_see
            self._to_end, self._to_see = set(), set()
            none = await loop.run_in_executor(self._threads, self._visit, ending, ending | seeing)
            self._none |= none & self._awaited
            self._awaited &= self._to_end | self._to_see

    def _visit(self, ending: set[Tuple], all_of_them: set[Tuple]) -> set[Tuple]:
        """End those, and give the ones of all of them that have no socket left."""
        left: set[Tuple] = set()
        by_pod: dict[IpAddress, set[Tuple]] = {}
        for one in all_of_them:
            for ip in (one.source.ip, one.destination.ip):
                by_pod.setdefault(ip, set()).add(one)
        for ip, tuples in by_pod.items():
            netns = self._netns_of(ip)
            if netns is None:
                continue
            try:
                left |= self._in_pod(netns, tuples, ending)
            except (MeshError, OSError) as error:
                log.error("same-node kernel path: cannot see or end sockets of %s: %s", ip, error)
                left |= tuples
        return all_of_them - left

    def _in_pod(self, netns: PodNetns, tuples: set[Tuple], ending: set[Tuple]) -> set[Tuple]:
        found: dict[Tuple, TcpSocket] = {}
        for socket in self._kernel.sockets(netns):
            here = Tuple(socket.local, socket.remote)
            one = here if here in tuples else here.reverse
            if one in tuples:
                found[one] = socket
        self._kernel.end(netns, [socket for one, socket in found.items() if one in ending])
        return {one for one in found if one not in ending}
