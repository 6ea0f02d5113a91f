"""A non-blocking TCP socket on the event loop: the base of everything that moves bytes.

It reads on readiness into buffers shared by the whole worker and writes at once; only what the kernel does not take
is copied into a backlog. Plain readiness instead of asyncio transports is what was measured to be faster. Once it was
read it is watched for errors, also while nobody reads it.
A failure inside one socket's handler ends that socket, never the worker.
"""

from __future__ import annotations

import copy
import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from ztunnel.proxy.backlog import Backlog, Chunks
from ztunnel.proxy.poller import BROKEN, READ, WRITE, Poller

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_END_ON_CLOSE: Final = struct.pack("ii", 0, 0)
_TO_READ: Final = READ | BROKEN


class Buffers:
    """Memory that every socket of a worker reads into, contents valid only until the handler returns; and the source
    of what its octets wait in."""

    __slots__ = ("chunks", "nested", "net", "plain")

    SIZE: Final = 256 * 1024

    def __init__(self) -> None:
        self.net = memoryview(bytearray(self.SIZE))
        self.plain = memoryview(bytearray(self.SIZE))
        self.nested = memoryview(bytearray(self.SIZE))
        """What is decrypted out of `plain`; untouched, and so without pages, until there is such a tunnel."""
        self.chunks = Chunks()

    def counting(self, chunks: Chunks) -> Buffers:
        """The same memory with another source of backlogs."""
        other = copy.copy(self)
        other.chunks = chunks
        return other


def abort_socket(sock: socket.socket) -> None:
    """Close with RST, so that the peer cannot take it for an orderly end."""
    _linger(sock, _RESET_ON_CLOSE)
    sock.close()


def _linger(sock: socket.socket, how: bytes) -> bool:
    """False for a socket that is of no more use. Not `contextlib.suppress`: this is done four times per connection."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
    except OSError:
        return False
    return True


class SocketEnd:
    """Owns `sock` (non-blocking). Subclasses say what reading means."""

    __slots__ = (
        "_backlog",
        "_crashed",
        "_ending",
        "_guarded",
        "_high",
        "_recv_into",
        "_send",
        "_writing",
        "closed",
        "congested",
        "fd",
        "poller",
        "reading",
        "sock",
    )

    def __init__(
        self,
        poller: Poller,
        sock: socket.socket,
        high: int,
        crashed: Callable[[str, BaseException], None],
        chunks: Chunks | None = None,
    ) -> None:
        self.poller = poller
        self.sock = sock
        self.fd = sock.fileno()
        self.reading = False
        self.closed = False
        self.congested = False
        """More than `high` octets wait for the kernel; `on_relieved` follows when less than a quarter does."""
        self._backlog = Backlog(chunks or Chunks())
        self._high = high
        self._writing = False
        self._ending = False
        self._guarded = False
        self._recv_into = sock.recv_into
        self._send = sock.send
        self._crashed = crashed

    # --- what subclasses define

    def on_readable(self) -> None:
        """The socket has something to read (data, end or error)."""
        raise NotImplementedError

    def on_lost(self, error: OSError | None) -> None:
        """The socket failed (`error`) or the peer is gone (None); it is closed already. Called once, never after
        `close` or `abort`."""
        raise NotImplementedError

    def on_relieved(self) -> None:
        """The backlog is short again."""

    def on_written_end(self) -> None:
        """After `end_writing`: everything was written and the end was told to the peer."""

    # --- what they use

    @property
    def backlog_size(self) -> int:
        """Octets that wait for the kernel."""
        return self._backlog.size

    def guard(self) -> None:
        """From now on only `close` is an orderly end: when the process dies the kernel closes with RST, and nobody
        takes what was sent until then for all there is."""
        self._guarded = _linger(self.sock, _RESET_ON_CLOSE)

    def start_reading(self) -> None:
        if not self.reading and not self.closed:
            self.reading = True
            self._watch()

    def stop_reading(self) -> None:
        if self.reading:
            self.reading = False
            self._watch()

    def _watch(self) -> None:
        self.poller.watch(self.fd, (READ if self.reading else 0) | (WRITE if self._writing else 0), self._ready)

    def push(self, data: bytes | memoryview) -> None:
        """Write; what cannot be written now is copied. A failure is told through `on_lost` before this returns."""
        error = self.put(data)
        if error is not None:
            self.fail(error)

    def put(self, data: bytes | memoryview) -> OSError | None:
        """Like `push`, but a failure is returned, for the caller to `fail` with it when nobody is in between."""
        if self.closed:
            return None
        if not self._backlog.size:
            try:
                sent = self._send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                return error
            if sent == len(data):
                return None
            data = data[sent:]
        self._backlog.append(data)
        if not self._writing:
            self._writing = True
            self._backlog.source.moved(self)
            self._watch()
        if self._backlog.size > self._high or self._backlog.source.crowded():
            self.congested = True
        return None

    def end_writing(self) -> None:
        """Send FIN once everything is written."""
        if not self._ending and not self.closed:
            self._ending = True
            if not self._backlog.size:
                self._say_end()

    def close(self) -> None:
        """Close now; unwritten octets are lost."""
        if not self.closed:
            self.closed = True
            self.reading = self._writing = False
            self.poller.forget(self.fd)
            if self._backlog.size:
                self._backlog.source.emptied(self)
                self._backlog.clear()
            if self._guarded:
                _linger(self.sock, _END_ON_CLOSE)
            self.sock.close()

    def abort(self) -> None:
        """Close with RST, so that the peer cannot take it for an orderly end."""
        if not self.closed:
            self.guard()
            self._guarded = False
            self.close()

    def give_way(self) -> None:
        """It is stuck, and others need the memory (Holder): abort it, and tell the subclass."""
        if not self.closed:
            self.abort()
            self.on_lost(TimeoutError(errno.ETIMEDOUT, "nothing was read for long, and others wait"))

    def fail(self, error: OSError | None) -> None:
        """The socket is of no more use: close it and tell the subclass."""
        if not self.closed:
            self.close()
            self.on_lost(error)

    def _say_end(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.fail(error)
            return
        self.on_written_end()

    def _ready(self, events: int) -> None:
        try:
            if self.reading:
                if events & _TO_READ:
                    self.on_readable()
            elif events & BROKEN:
                self._broken()
            if self._writing and events & WRITE:
                self._drain()
        except Exception as error:
            self._crash(error)

    def _broken(self) -> None:
        """Nobody reads it, and it failed or both directions have ended. Then what came may still be unread."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.fail(OSError(code, os.strerror(code)))
        elif not self._writing:
            # Told again and again otherwise; whoever reads on watches it again.
            self.poller.leave(self.fd)

    def _crash(self, error: Exception) -> None:
        self._crashed(type(self).__name__, error)
        if not self.closed:
            self.abort()
            try:
                self.on_lost(None)
            except Exception as second:
                self._crashed(type(self).__name__, second)

    def _drain(self) -> None:
        backlog = self._backlog
        try:
            sent = self.sock.sendmsg(backlog.head())
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.fail(error)
            return
        backlog.drop(sent)
        if backlog.size:
            backlog.source.moved(self)
        else:
            backlog.source.emptied(self)
            self._writing = False
            self._watch()
            if self._ending:
                self._say_end()
                if self.closed:
                    return
        if self.congested and backlog.size <= self._high >> 2:
            self.congested = False
            self.on_relieved()
