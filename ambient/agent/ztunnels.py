"""The agent's side of ZDS: who is connected, which pods they serve; adds to the newest, deletes to all.

Owns the listening socket and the connections. Knows nothing of datapath, objects or journal; descriptors of pods
belong to whoever added them and must stay open until `remove` or `forget` has returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ambient.errors import MeshError, ProtocolError
from ambient.zds import packet
from ambient.zds.codec import MAX_PACKET, AddWorkload, KeepWorkload, encode_request
from ambient.zds.session import AgentSession, NotServed, Removed, Served, SnapshotDone

_DEADLINE_S: Final = 5.0

log = logging.getLogger("ambient.agent.zds")


@dataclass(slots=True)
class _Pod:
    request: AddWorkload | KeepWorkload
    netns_fd: int
    served: asyncio.Event = field(default_factory=asyncio.Event)
    refused: str = ""


@dataclass(slots=True, eq=False)
class _Connection:
    socket: packet.PacketSocket
    peer: packet.Peer
    session: AgentSession
    kicked: asyncio.Event = field(default_factory=asyncio.Event)
    deleted: dict[str, asyncio.Event] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    snapshot_done: bool = False


class Ztunnels:
    """`connected` and `gone` are told the peer of each ztunnel that comes and goes; the first is waited for before that
    ztunnel is told anything."""

    def __init__(
        self, connected: Callable[[packet.Peer], Awaitable[None]], gone: Callable[[packet.Peer], None]
    ) -> None:
        self._connected = connected
        self._gone = gone
        self._pods: dict[str, _Pod] = {}
        self._connections: list[_Connection] = []

    @property
    def count(self) -> int:
        """How many ztunnels have said hello."""
        return len(self._connections)

    @property
    def settled(self) -> bool:
        """The newest ztunnel has its snapshot and serves every pod."""
        return bool(self._connections and self._connections[-1].snapshot_done) and not self.pending

    @property
    def pending(self) -> Mapping[str, str]:
        """Pods that no ztunnel serves yet, with the reason it gave ("" = it has not answered)."""
        return {uid: pod.refused for uid, pod in self._pods.items() if not pod.served.is_set()}

    def add(self, pod: AddWorkload, netns_fd: int) -> None:
        """Have the newest ztunnel serve this pod, and every later one. The same pod and descriptor again: no-op."""
        known = self._pods.get(pod.uid)
        if known is not None and known.request == pod and known.netns_fd == netns_fd:
            return
        self._pods[pod.uid] = _Pod(pod, netns_fd)
        if self._connections:
            self._connections[-1].session.add(pod)
            self._connections[-1].kicked.set()

    def keep(self, uid: str) -> None:
        """The pod exists and is served, but its namespace cannot be opened: a ztunnel that has it keeps it."""
        if uid not in self._pods:
            self._pods[uid] = _Pod(KeepWorkload(uid), -1)

    async def served(self, uid: str) -> None:
        """Return when a ztunnel has acknowledged the pod. KeyError when it was not added."""
        await self._pods[uid].served.wait()

    async def remove(self, uid: str) -> None:
        """Have every ztunnel let go of the pod; returns when all have, or are gone. Unknown pods are fine."""
        self._pods.pop(uid, None)
        waiting = []
        for connection in self._connections:
            done = connection.deleted.setdefault(uid, asyncio.Event())
            connection.session.delete(uid)
            connection.kicked.set()
            waiting.append(_either(done, connection.ended))
        await asyncio.gather(*waiting)

    async def serve(self, path: Path) -> None:
        """Listen and serve until cancelled. Call it only when every pod that is served was added or kept: ztunnel
        drops those that the snapshot does not name."""
        listener = packet.listen(path)
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    tasks.create_task(self._serve_one(await packet.accept(listener)))
        finally:
            listener.close()

    async def _serve_one(self, sock: packet.PacketSocket) -> None:
        peer = sock.peer
        connection: _Connection | None = None
        try:
            if peer.uid != os.getuid():
                raise ProtocolError("ZDS connection", f"pid {peer.pid}", f"user {peer.uid} may not be ztunnel")
            hello = await _within(sock)
            connection = _Connection(sock, peer, AgentSession(pod.request for pod in self._pods.values()))
            connection.session.receive(hello, 0.0)
            self._connections.append(connection)
            await self._connected(peer)
            log.info("ztunnel connected: pid %d, %d pods in its snapshot", peer.pid, len(self._pods))
            await self._converse(connection)
        except TimeoutError:
            log.warning("ztunnel pid %d: no answer within %.0f s", peer.pid, _DEADLINE_S)
        except (MeshError, OSError) as error:
            log.warning("ztunnel pid %d: %s", peer.pid, error)
        finally:
            sock.close()
            if connection in self._connections:
                self._lose(connection)

    def _lose(self, connection: _Connection) -> None:
        newest = self._connections[-1] is connection
        self._connections.remove(connection)
        connection.ended.set()
        self._gone(connection.peer)
        log.info("ztunnel disconnected: pid %d, %d left", connection.peer.pid, len(self._connections))
        if newest and self._connections:
            # What only the lost one was told, the one before it has to know now. Repeated adds are idempotent.
            for pod in self._pods.values():
                if isinstance(pod.request, AddWorkload):
                    self._connections[-1].session.add(pod.request)
            self._connections[-1].kicked.set()

    async def _converse(self, connection: _Connection) -> None:
        loop = asyncio.get_running_loop()
        session, sock = connection.session, connection.socket
        incoming = asyncio.ensure_future(sock.receive(MAX_PACKET, 0))
        try:
            while True:
                connection.kicked.clear()
                request = session.next_request(loop.time())
                if request is not None:
                    pod = self._pods.get(getattr(request, "uid", ""))
                    fds = [pod.netns_fd] if isinstance(request, AddWorkload) and pod is not None else []
                    if isinstance(request, AddWorkload) and not fds:
                        raise ProtocolError("ZDS add", request.uid, "the pod is gone")
                    async with asyncio.timeout(_DEADLINE_S):
                        await sock.send(encode_request(request), fds)
                        answer, _ = await asyncio.shield(incoming)
                else:
                    wake = session.wake_at()
                    await _either(connection.kicked, incoming, None if wake is None else max(0.0, wake - loop.time()))
                    if not incoming.done():
                        continue
                    answer, _ = incoming.result()
                if not answer:
                    return
                self._note(connection, answer, loop.time())
                incoming = asyncio.ensure_future(sock.receive(MAX_PACKET, 0))
        finally:
            incoming.cancel()
            with contextlib.suppress(asyncio.CancelledError, MeshError):
                await incoming

    def _note(self, connection: _Connection, answer: bytes, now: float) -> None:
        event = connection.session.receive(answer, now)
        if isinstance(event, SnapshotDone):
            connection.snapshot_done = True
        elif isinstance(event, Removed):
            done = connection.deleted.pop(event.uid, None)
            if done is not None:
                done.set()
        elif isinstance(event, Served | NotServed):
            pod = self._pods.get(event.uid)
            if pod is not None and isinstance(event, Served):
                pod.refused = ""
                pod.served.set()
            elif pod is not None and isinstance(event, NotServed):
                pod.refused = event.error
                log.warning("pod %s: ztunnel cannot serve it yet: %s", event.uid, event.error)


async def _either(
    event: asyncio.Event, other: asyncio.Event | asyncio.Future[Any], at_most_s: float | None = None
) -> None:
    """Return when one of the two has happened, or after `at_most_s` seconds. A future is not cancelled."""
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait())]
    waits.append(asyncio.ensure_future(other.wait()) if isinstance(other, asyncio.Event) else other)
    try:
        await asyncio.wait(waits, timeout=at_most_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            if wait is not other:
                wait.cancel()


async def _within(sock: packet.PacketSocket) -> bytes:
    async with asyncio.timeout(_DEADLINE_S):
        received, _ = await sock.receive(MAX_PACKET, 0)
    return received
