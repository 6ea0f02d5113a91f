"""The pods change hands between two ztunnels of one node: from the one that leaves to the one that comes.

Both hold the same listening sockets for a while, so no connection is refused, not even one that waits to be
accepted. The leaving side listens on handover.sock in the run directory (`Estate`); the coming one connects, reads
what discovery has told as soon as that is on disk, asks when it could serve, is given every certificate and every pod's
sockets (`Heir`), and says which it serves. An older or foreign ztunnel has no such socket: then each binds its own, and
what is on its way is left to retransmission.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from ambient.waking import woken
from ztunnel.director.custody import Secret
from ztunnel.ipc import messages as ipc
from ztunnel.ipc.channel import Channel
from ztunnel.ipc.handover import AllGiven, TakenOver, TakeOver, Written

ANSWER_S: Final = 5.0
"""How long the heir waits for what it asked for."""
WRITTEN_S: Final = 10.0
"""How long the heir waits for what the other knows. Nobody else waits meanwhile: the other one serves."""

_log = logging.getLogger("handover")

Pods = Callable[[], Iterable[tuple[ipc.PodListeners, tuple[int, ...]]]]
Secrets = Callable[[], Iterable[tuple[str, Secret]]]


def own_network() -> int:
    """Identity of the network namespace this process is in: who shares it shares our ports."""
    return os.stat("/proc/self/ns/net").st_ino


class Estate:
    """What this ztunnel would leave. The newest heir counts; one that goes away before us has taken nothing."""

    def __init__(self, path: str, pods: Pods, secrets: Secrets, write: Callable[[], Awaitable[object]]) -> None:
        """`write` puts on disk what discovery has told."""
        self._path = Path(path)
        self._pods = pods
        self._secrets = secrets
        self._write = write
        self._writing: set[asyncio.Future[None]] = set()
        self._listener: socket.socket | None = None
        self._heir: Channel | None = None
        self._changed = asyncio.Event()
        self.taken: frozenset[str] | None = None
        """Uids whose sockets the heir serves; None while there is none that is ready."""
        self.beside = False
        """The heir wants the same ports for its pages."""

    def listen(self) -> None:
        """From here on a newer ztunnel finds us. Without a place for the socket there is no handover, no error."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._path.unlink(missing_ok=True)
            os.fchmod(sock.fileno(), 0o600)
            sock.bind(str(self._path))
            sock.listen(4)
        except OSError as error:
            sock.close()
            _log.warning("no handover: %s: %s", self._path, error.strerror)
            return
        self.close()
        self._listener = sock
        asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Nobody new finds us; the heir hears that we are gone."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        if self._heir is not None:
            self._heir.close()
            self._heir = None
        for writing in self._writing:
            writing.cancel()

    async def passed_on(self, expected_s: float, patience_s: float) -> frozenset[str]:
        """The uids that an heir serves with our sockets: waits so long for one to show up, and for one that is there
        to be ready. Empty when there is none."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self.taken is None:
            left = began + (patience_s if self._heir is not None else expected_s) - loop.time()
            if left <= 0:
                return frozenset()
            await woken(self._changed, left)
            self._changed.clear()
        return self.taken

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        pid, uid = _other_end(sock)
        if uid != os.geteuid():
            _log.warning("a process of user %d tried to take over", uid)
            sock.close()
            return
        _log.info("ztunnel with pid %d is getting ready to take over", pid)
        if self._heir is not None:
            self._heir.close()
        self.taken = None
        channel = Channel(
            asyncio.get_running_loop(), sock, lambda message, fds: self._said(channel, message, fds), self._lost
        )
        self._heir = channel
        self._changed.set()
        writing = asyncio.ensure_future(self._write_for(channel))
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)

    async def _write_for(self, channel: Channel) -> None:
        """An heir that starts from older knowledge would have nobody to correct it while there is no control plane."""
        await self._write()
        channel.send(Written())

    def _said(self, channel: Channel, message: object, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        match message:
            case TakeOver():
                self.beside = message.network == own_network()
                for identity, secret in self._secrets():
                    held = ipc.Certificate(identity=identity, roots=secret.roots, not_after_unix=secret.not_after)
                    channel.send(held, (secret.fd,))
                for pod, sockets in self._pods():
                    channel.send(pod, sockets)
                channel.send(AllGiven())
            case TakenOver():
                self.taken = frozenset(message.uids)
                self._changed.set()
            case _:
                _log.warning("an heir said %s", type(message).__name__)

    def _lost(self) -> None:
        self._heir, self.taken = None, None
        self._changed.set()
        if self._listener is not None and not _answers(self._path):
            # It had put its own socket in the place of ours.
            self.listen()


class Heir:
    """The coming side's view of the one before it. `gone` is set when there is none, or no longer."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._channel: Channel | None = None
        self._written = asyncio.Event()
        self._given = asyncio.Event()
        self.gone = asyncio.Event()
        self.secrets: dict[str, Secret] = {}
        self.pods: list[tuple[ipc.PodListeners, list[int]]] = []

    def connect(self) -> bool:
        """Whether somebody is there to take over from."""
        sock = _connected(self._path)
        if sock is not None and (uid := _other_end(sock)[1]) != os.geteuid():
            # Keys, roots and sockets out of a stranger's hands would make it master of the node.
            _log.warning("a process of user %d has put itself in the place of %s: not believed", uid, self._path)
            sock.close()
            sock = None
        if sock is None:
            self.gone.set()
            return False
        self._channel = Channel(asyncio.get_running_loop(), sock, self._said, self._lost)
        return True

    async def written(self) -> None:
        """Return when the disk has all that the one before us knows, or it takes too long."""
        if self._channel is not None and not await woken(self._written, WRITTEN_S):
            _log.warning("the ztunnel before us did not say that its knowledge is on disk: what is there may be older")

    async def ask(self) -> None:
        """Fill `secrets` and `pods`, whose descriptors are the caller's. What has not come in time is left out."""
        if self._channel is None:
            return
        self._channel.send(TakeOver(network=own_network()))
        await woken(self._given, ANSWER_S)

    def serving(self, uids: Sequence[str]) -> None:
        """We are ready: the one before us need not accept for these any more."""
        if self._channel is not None:
            self._channel.send(TakenOver(uids=tuple(uids)))

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _said(self, message: object, fds: list[int]) -> None:
        match message:
            case ipc.Certificate() if len(fds) == 1:
                self.secrets[message.identity] = Secret(fds[0], message.roots, message.not_after_unix)
            case ipc.PodListeners():
                self.pods.append((message, fds))
            case _:
                for fd in fds:
                    os.close(fd)
                if isinstance(message, Written):
                    self._written.set()
                elif isinstance(message, AllGiven):
                    self._given.set()

    def _lost(self) -> None:
        self._channel = None
        self._written.set()
        self._given.set()
        self.gone.set()


def _connected(path: str | Path) -> socket.socket | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        return None
    return sock


def _other_end(sock: socket.socket) -> tuple[int, int]:
    """Process and user that connected, or that listens."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def _answers(path: Path) -> bool:
    sock = _connected(path)
    if sock is not None:
        sock.close()
    return sock is not None
