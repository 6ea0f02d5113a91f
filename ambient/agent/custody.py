"""Keeps the key memfds of ztunnels and hands them to the next ztunnel of the same user.

Holds descriptors only and never reads what is in them. Nothing is written anywhere: when the agent ends they are
gone, and a ztunnel that reconnects puts its own again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.errors import MeshError, ProtocolError
from ambient.zds import packet
from ambient.zds.custody import MAX_PACKET, Drop, End, Held, List, Put, decode, encode

_MOST: Final = 4096
"""Secrets that are kept at once; a node runs far fewer identities."""

log = logging.getLogger("ambient.agent.custody")


@dataclass(frozen=True, slots=True)
class _Secret:
    put: Put
    fd: int


class Custody:
    """At most `most` secrets, by user id of the ztunnel and identity. `clock` gives unix seconds; `came` is called when
    a secret has come. `clients`: the ztunnels that put theirs here now."""

    def __init__(self, clock: Callable[[], float], most: int = _MOST, came: Callable[[], None] = lambda: None) -> None:
        self._clock = clock
        self._most = most
        self._came = came
        self.clients = 0
        self._secrets: dict[tuple[int, str], _Secret] = {}

    def __len__(self) -> int:
        return len(self._secrets)

    def put(self, uid: int, message: Put, fd: int) -> None:
        """Take over `fd` (it is closed here when it is refused); raises ProtocolError for anything but a memfd."""
        self.forget_expired()
        key = (uid, message.identity)
        if not os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:"):
            os.close(fd)
            raise ProtocolError("custody put", message.identity, "the descriptor is no memfd")
        if key not in self._secrets and len(self._secrets) >= self._most:
            os.close(fd)
            raise ProtocolError("custody put", message.identity, f"{self._most} secrets are held already")
        self.drop(uid, message.identity)
        self._secrets[key] = _Secret(message, fd)
        self._came()

    def lacks(self, namespace: str, service_account: str) -> bool:
        """A ztunnel puts its secrets here, and none is for this service account (of whatever trust domain)."""
        wanted = f"/ns/{namespace}/sa/{service_account}"
        return self.clients > 0 and not any(identity.endswith(wanted) for _, identity in self._secrets)

    def drop(self, uid: int, identity: str) -> None:
        secret = self._secrets.pop((uid, identity), None)
        if secret is not None:
            os.close(secret.fd)

    def held(self, uid: int) -> list[tuple[Held, int]]:
        """What this user has put and has not expired; the descriptors stay ours."""
        self.forget_expired()
        return [
            (Held(s.put.identity, s.put.not_after, s.put.roots), s.fd)
            for (owner, _), s in sorted(self._secrets.items())
            if owner == uid
        ]

    def forget_expired(self) -> None:
        now = self._clock()
        for (uid, identity), secret in list(self._secrets.items()):
            if secret.put.not_after <= now:
                self.drop(uid, identity)

    def close(self) -> None:
        for uid, identity in list(self._secrets):
            self.drop(uid, identity)


async def serve(custody: Custody, path: Path) -> None:
    """Listen and serve until cancelled."""
    listener = packet.listen(path)
    try:
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(_serve_one(custody, await packet.accept(listener)))
    finally:
        listener.close()


async def _serve_one(custody: Custody, sock: packet.PacketSocket) -> None:
    peer = sock.peer
    custody.clients += 1
    try:
        if peer.uid != os.getuid():
            raise ProtocolError("custody connection", f"pid {peer.pid}", f"user {peer.uid} may not be ztunnel")
        while True:
            data, fds = await sock.receive(MAX_PACKET, 1)
            if not data:
                packet.close_all(fds)
                return
            await _act(custody, sock, peer.uid, data, fds)
    except MeshError as error:
        log.warning("custody, ztunnel pid %d: %s", peer.pid, error)
    finally:
        custody.clients -= 1
        sock.close()


async def _act(custody: Custody, sock: packet.PacketSocket, uid: int, data: bytes, fds: list[int]) -> None:
    try:
        message = decode(data, len(fds))
    except ProtocolError:
        packet.close_all(fds)
        raise
    if isinstance(message, Put):
        custody.put(uid, message, fds[0])
        return
    packet.close_all(fds)
    if isinstance(message, Drop):
        custody.drop(uid, message.identity)
    elif isinstance(message, List):
        for held, fd in custody.held(uid):
            await sock.send(encode(held), [fd])
        await sock.send(encode(End()))
    else:
        raise ProtocolError("custody packet", type(message).__name__, "only the agent sends it")
