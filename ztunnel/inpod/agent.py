"""The conversation with the node agent (ZDS): keeps a connection alive, acts on each request, then acknowledges it.

While the agent is away every pod goes on being served. Pods that could not be served are tried again every 5 s.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, Protocol

from ambient.errors import MeshError, ProtocolError
from ambient.zds.codec import MAX_PACKET, AddWorkload, DelWorkload, SnapshotSent, decode_request
from ambient.zds.packet import PacketSocket, close_all, connect
from ambient.zds.session import Start, ZtunnelSession

FIRST_PAUSE_S: Final = 0.010
LONGEST_PAUSE_S: Final = 1.0
"""Istio waits up to 15 s; the socket is on this machine, and new pods wait for us."""
RETRY_S: Final = 5.0

_log = logging.getLogger("inpod")


class Keeper(Protocol):
    """Who serves pods."""

    async def add(self, pod: AddWorkload, netns: int) -> str: ...
    def remove(self, uid: str) -> None: ...
    def snapshot_done(self) -> None: ...
    async def retry(self) -> Iterable[str]: ...
    def served(self) -> Iterable[str]: ...


class AgentLink:
    """`ready`: connected, the snapshot is complete and every pod of it is served."""

    def __init__(
        self,
        path: str,
        keeper: Keeper,
        *,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._path = Path(path)
        self._keeper = keeper
        self._draw = draw
        self._sleep = sleep
        self._session: ZtunnelSession | None = None
        self._snapshot = False
        self._retired = False

    @property
    def ready(self) -> bool:
        return self._session is not None and self._session.ready

    def retire(self) -> None:
        """Do not connect again: the newest connection gets the node's new pods, and that should not be ours."""
        self._retired = True

    async def run(self) -> None:
        """Connect, listen, reconnect (10 ms doubling to 1 s), until retired."""
        pause = FIRST_PAUSE_S
        while not self._retired:
            self._snapshot = False
            try:
                await self._converse(connect(self._path))
            except MeshError as error:
                _log.log(logging.WARNING if pause > 1 or self._snapshot else logging.DEBUG, "%s", error)
            if self._snapshot:
                pause = FIRST_PAUSE_S
            await self._sleep(pause * (0.5 + self._draw() / 2))
            pause = min(LONGEST_PAUSE_S, pause * 2)

    async def _converse(self, link: PacketSocket) -> None:
        session = ZtunnelSession(self._keeper.served())
        retrying = asyncio.ensure_future(self._retry(session))
        try:
            self._session = session
            await link.send(session.hello())
            while await self._exchange(link, session):
                pass
        finally:
            self._session = None
            link.close()
            retrying.cancel()
            await asyncio.gather(retrying, return_exceptions=True)

    async def _exchange(self, link: PacketSocket, session: ZtunnelSession) -> bool:
        packet, fds = await link.receive(MAX_PACKET)
        if not packet:
            return False
        try:
            effect = session.receive(packet, len(fds))
        except ProtocolError:
            close_all(fds)
            raise
        request = decode_request(packet)
        error = ""
        if isinstance(effect, Start):
            error = await self._act(effect, fds)
        else:
            for uid in effect.uids:
                self._keeper.remove(uid)
        if isinstance(request, DelWorkload) and self._snapshot:
            # Also one that could never be served, which the session does not count as ours.
            self._keeper.remove(request.uid)
        await link.send(session.finish(error))
        if isinstance(request, SnapshotSent):
            self._snapshot = True
            self._keeper.snapshot_done()
        return True

    async def _act(self, start: Start, fds: list[int]) -> str:
        if not start.pod.name or not start.pod.namespace or not start.pod.service_account:
            os.close(fds[0])
            return "the request has no workload info"
        return await self._keeper.add(start.pod, fds[0])

    async def _retry(self, session: ZtunnelSession) -> None:
        while True:
            await self._sleep(RETRY_S)
            if session.pending:
                for uid in await self._keeper.retry():
                    session.recovered(uid)
