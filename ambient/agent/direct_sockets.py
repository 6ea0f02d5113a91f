"""The sockets at both ends of a connection on the kernel path: whether they are there, and their end.

Listing sockets is for a thread; who asks gets an answer at once, which is "not yet" until a thread has been there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor

from ambient.agent.kernel import Kernel
from ambient.agent.podns import PodNetns
from ambient.datapath.direct import Ends, Tuple
from ambient.datapath.sockets import TcpSocket
from ambient.errors import MeshError
from ambient.model.address import PROXY_MARK, IpAddress

log = logging.getLogger("ambient.agent.direct")


class PodSockets:
    """`netns_of` gives the namespace of the pod with an address, None when there is no such pod (any more)."""

    def __init__(self, kernel: Kernel, netns_of: Callable[[IpAddress], PodNetns | None], threads: Executor) -> None:
        self._kernel = kernel
        self._netns_of = netns_of
        self._threads = threads
        self._awaited: dict[Tuple, Ends] = {}
        self._to_end: dict[Tuple, Ends] = {}
        self._to_see: dict[Tuple, Ends] = {}
        self._none: dict[Tuple, Ends] = {}
        self._task: asyncio.Task[None] | None = None

    def end(self, ends: Ends) -> bool:
        """True once there are none; until then they are being ended."""
        return self._asked(ends, self._to_end)

    def gone(self, ends: Ends) -> bool:
        """True when a look since the last call found none."""
        return self._asked(ends, self._to_see)

    def forget(self, one: Tuple) -> None:
        """Its connection is over: nobody waits for what is still to be answered."""
        for waiting in (self._awaited, self._to_end, self._to_see, self._none):
            waiting.pop(one, None)

    def _asked(self, ends: Ends, waiting: dict[Tuple, Ends]) -> bool:
        found = self._none.pop(ends.tuple, None)
        if found is not None and _same(found, ends):
            return True
        self._awaited[ends.tuple] = ends
        waiting[ends.tuple] = ends
        self._begin()
        return False

    def _begin(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._to_end or self._to_see:
            ending, seeing = self._to_end, self._to_see
            self._to_end, self._to_see = {}, {}
            none = await loop.run_in_executor(self._threads, self._visit, frozenset(ending), {**seeing, **ending})
            for one, ends in none.items():
                awaited = self._awaited.get(one)
                if awaited is not None and _same(awaited, ends):
                    self._none[one] = ends
            left = self._to_end.keys() | self._to_see.keys()
            self._awaited = {one: ends for one, ends in self._awaited.items() if one in left}

    def _visit(self, ending: Collection[Tuple], all_of_them: Mapping[Tuple, Ends]) -> dict[Tuple, Ends]:
        """End those, and give the ones of all of them that have no socket left."""
        left: set[Tuple] = set()
        by_pod: dict[IpAddress, dict[Tuple, Ends]] = {}
        for one, ends in all_of_them.items():
            for ip in (one.source.ip, one.destination.ip):
                by_pod.setdefault(ip, {})[one] = ends
        for ip, its in by_pod.items():
            netns = self._netns_of(ip)
            if netns is None:
                continue
            try:
                left |= self._in_pod(netns, its, ending)
            except (MeshError, OSError) as error:
                log.error("same-node kernel path: cannot see or end sockets of %s: %s", ip, error)
                left |= its.keys()
        return {one: ends for one, ends in all_of_them.items() if one not in left}

    def _in_pod(self, netns: PodNetns, wanted: Mapping[Tuple, Ends], ending: Collection[Tuple]) -> set[Tuple]:
        to_end, left = [], set()
        for socket in self._kernel.sockets(netns):
            here = Tuple(socket.local, socket.remote)
            one = here if here in wanted else here.reverse
            if one not in wanted or not _is_end(socket, wanted[one], at_client=one is here):
                continue
            if one in ending:
                to_end.append(socket)
            else:
                left.add(one)
        self._kernel.end(netns, to_end)
        return left


def _same(one: Ends, other: Ends) -> bool:
    """One connection; what its sockets are may have become known meanwhile."""
    return (one.tuple, one.opened_s) == (other.tuple, other.opened_s)


def _is_end(socket: TcpSocket, ends: Ends, *, at_client: bool) -> bool:
    """Not another socket of that four-tuple: ztunnel's, or of a connection before or after this one."""
    cookie = ends.client if at_client else ends.server
    return socket.mark != PROXY_MARK and cookie in (0, socket.cookie)
