"""SOCK_SEQPACKET with descriptors on an asyncio loop: the shell under ZDS and key custody, for both ends.

Deadlines are the caller's (`asyncio.timeout`).
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ambient.errors import ProtocolError, Unavailable


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel saw it when the connection was made."""

    pid: int
    uid: int
    gid: int


class PacketSocket:
    """One connection. Descriptors that `receive` returns are close-on-exec and belong to the caller."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    @property
    def peer(self) -> Peer:
        raw = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return Peer(*struct.unpack("3i", raw))

    async def send(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send one packet whole; the caller keeps its descriptors. Raises Unavailable when the peer is gone."""
        while True:
            try:
                socket.send_fds(self._sock, [packet], list(descriptors))
            except BlockingIOError:
                await self._until(writable=True)
            except OSError as error:
                raise Unavailable("local connection", why=error.strerror or str(error)) from None
            else:
                return

    async def receive(self, limit: int, descriptors: int = 1) -> tuple[bytes, list[int]]:
        """The next packet and its descriptors, (b"", []) when the peer has closed.

        Raises ProtocolError (after closing what came) for a packet over `limit` bytes or with more descriptors.
        """
        room = socket.CMSG_LEN(descriptors * array.array("i").itemsize)
        while True:
            try:
                # Not socket.recv_fds: in Python 3.11 it drops its flags, and the descriptors would leak into children.
                packet, ancillary, flags, _ = self._sock.recvmsg(limit, room, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                await self._until(writable=False)
                continue
            except OSError as error:
                raise Unavailable("local connection", why=error.strerror or str(error)) from None
            fds = array.array("i")
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(fds) > descriptors:
                close_all(fds)
                raise ProtocolError("local packet", why=f"over {limit} bytes or {descriptors} descriptors")
            return packet, fds.tolist()

    async def _until(self, *, writable: bool) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        fd = self._sock.fileno()
        watch, unwatch = (loop.add_writer, loop.remove_writer) if writable else (loop.add_reader, loop.remove_reader)
        watch(fd, _settle, ready)
        try:
            await ready
        finally:
            unwatch(fd)

    def close(self) -> None:
        """Close; tasks that wait in `send` or `receive` have to be cancelled before."""
        self._sock.close()


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody wants; each at most once, errors ignored."""
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)


def listen(path: Path, backlog: int = 8) -> socket.socket:
    """A listening socket at `path`, mode 0600 from its first moment; a stale one is replaced. Raises Unavailable."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(str(path))
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise Unavailable("cannot listen", str(path), error.strerror or str(error)) from None
    return sock


async def accept(listener: socket.socket) -> PacketSocket:
    """The next connection."""
    sock, _ = await asyncio.get_running_loop().sock_accept(listener)
    return PacketSocket(sock)


def connect(path: Path) -> PacketSocket:
    """Connect at once or raise Unavailable (nobody listens, or too many are waiting)."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.connect(str(path))
    except OSError as error:
        sock.close()
        raise Unavailable("cannot connect", str(path), error.strerror or str(error)) from None
    return PacketSocket(sock)
