"""An ordered message channel with file descriptors over a connected Unix stream socket.

A frame is u32 payload length, u16 number of descriptors (network order), payload; the descriptors travel as
SCM_RIGHTS on the frame's first byte. Sending never blocks; a peer that leaves more than `MAX_BACKLOG` bytes
unread is given up. It does not reconnect and does not know what the messages mean.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, takewhile
from typing import Final

from ambient.errors import InvalidInput, MeshError
from ztunnel.ipc.codec import decode, encode

__all__ = ["MAX_BACKLOG", "MAX_FDS", "MAX_FRAME", "Channel", "decode", "encode"]

MAX_FRAME: Final = 64 << 20
"""Largest payload in bytes; a longer one closes the channel of the receiver and is refused at the sender."""
MAX_BACKLOG: Final = 128 << 20
"""Unsent bytes after which a peer counts as dead."""
MAX_FDS: Final = 64
"""Descriptors of one message."""

_HEADER: Final = struct.Struct("!IH")
_READ_SIZE: Final = 256 << 10
_KERNEL_MAX_FDS: Final = 253
_BATCH: Final = 64


class Channel:
    """Both ends of the conversation use this class. `sock` is owned by the channel from here on.

    `on_message(message, fds)`: the receiver owns the descriptors (already close-on-exec). `on_closed()` is called
    once when the peer, an error or a broken frame ended the channel; not after our own `close()`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_message: Callable[[object, list[int]], None],
        on_closed: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._closed = False
        self._received = bytearray()
        self._received_fds: deque[int] = deque()
        self._unsent: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._backlog = 0
        self._ancillary = socket.CMSG_SPACE(_KERNEL_MAX_FDS * array.array("i").itemsize)
        self.failure = ""
        loop.add_reader(sock, self._readable)

    @property
    def closed(self) -> bool:
        """True after either end closed; `failure` says why if it was not an orderly end."""
        return self._closed

    @property
    def backlog(self) -> int:
        """Bytes accepted by `send` and not yet taken by the kernel."""
        return self._backlog

    def send(self, message: object, fds: Sequence[int] = ()) -> None:
        """Queue `message`; the caller keeps its descriptors (they are duplicated where they have to wait).

        On a closed channel it does nothing: the owner hears of the end through `on_closed`. Raises InvalidInput
        for a message that cannot travel (unregistered, too large, too many descriptors) and sends nothing.
        """
        payload = encode(message)
        if len(payload) > MAX_FRAME or len(fds) > MAX_FDS:
            raise InvalidInput("message too large for the channel", type(message).__name__, f"{len(payload)} bytes")
        if self._closed:
            return
        if self._backlog + len(payload) > MAX_BACKLOG:
            self._loop.call_soon(self._fail, "the peer does not read")
            return
        frame = memoryview(_HEADER.pack(len(payload), len(fds)) + payload)
        sent = 0 if self._unsent else self._write([frame], fds)
        if sent == len(frame) or sent < 0:
            return
        if not self._unsent:
            self._loop.add_writer(self._sock, self._flush)
        # Once a first byte is out its descriptors are out with it.
        self._unsent.append((frame[sent:], () if sent else tuple(os.dup(fd) for fd in fds)))
        self._backlog += len(frame) - sent

    def close(self) -> None:
        """End the channel now. What the kernel takes at once is still sent; received descriptors nobody took close."""
        if self._closed:
            return
        if self._unsent:
            self._flush()
        self._shut()

    def _readable(self) -> None:
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(_READ_SIZE, self._ancillary, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(os.strerror(error.errno or 0))
            return
        for level, kind, block in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                received = array.array("i")
                received.frombytes(block[: len(block) - len(block) % received.itemsize])
                self._received_fds.extend(received)
        if not data:
            self._fail("" if not self._received else "ended inside a frame")
        elif flags & socket.MSG_CTRUNC:
            self._fail("file descriptors were lost (is the limit of open files reached?)")
        else:
            self._received += data
            self._dispatch()

    def _dispatch(self) -> None:
        start = 0
        try:
            while not self._closed and len(self._received) - start >= _HEADER.size:
                length, count = _HEADER.unpack_from(self._received, start)
                if length > MAX_FRAME or count > MAX_FDS:
                    raise InvalidInput("frame too large", "", f"{length} bytes, {count} descriptors")
                end = start + _HEADER.size + length
                if len(self._received) < end:
                    break
                if len(self._received_fds) < count:
                    raise InvalidInput("frame without its file descriptors")
                message = decode(bytes(self._received[start + _HEADER.size : end]))
                start = end
                self._deliver(message, [self._received_fds.popleft() for _ in range(count)])
        except MeshError as error:
            self._fail(str(error))
        del self._received[:start]

    def _deliver(self, message: object, fds: list[int]) -> None:
        try:
            self._on_message(message, fds)
        except Exception as error:
            # One message that its handler chokes on must not stop the ones behind it.
            self._loop.call_exception_handler({"message": f"handling {type(message).__name__}", "exception": error})

    def _flush(self) -> None:
        while self._unsent:
            fds = self._unsent[0][1]
            plain = takewhile(lambda entry: not entry[1], islice(self._unsent, 1, _BATCH))
            batch = [self._unsent[0][0], *(frame for frame, _ in plain if not fds)]
            sent = self._write(batch, fds)
            if sent <= 0:
                return
            self._backlog -= sent
            while sent:
                frame, waiting = self._unsent.popleft()
                if sent < len(frame):
                    self._unsent.appendleft((frame[sent:], ()))
                sent = max(0, sent - len(frame))
                _close_all(waiting)
        self._loop.remove_writer(self._sock)

    def _write(self, frames: list[memoryview], fds: Sequence[int]) -> int:
        """Bytes taken by the kernel; 0 when it has no room, -1 when the channel is broken (reported soon)."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            return self._sock.sendmsg(frames, rights, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            # Not from inside send(): its caller may be iterating over the very table that on_closed changes.
            self._loop.call_soon(self._fail, os.strerror(error.errno or 0))
            return -1

    def _fail(self, why: str) -> None:
        if not self._closed:
            self.failure = why
            self._shut()
            self._on_closed()

    def _shut(self) -> None:
        self._closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, fds in self._unsent:
            _close_all(fds)
        self._unsent.clear()
        self._backlog = 0
        _close_all(self._received_fds)
        self._received_fds.clear()


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
