"""Connecting a socket without waiting for it, with a deadline."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from ambient.model.address import Endpoint
from ztunnel.addresses import text_of
from ztunnel.proxy.poller import WRITE, Poller

_DONE: Final = (0, errno.EISCONN)
_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK)

Done = Callable[[OSError | None], None]


class Dial:
    """One attempt. `done(None)` or `done(error)` is called once, maybe before the constructor's caller goes on
    (a connection to this host is often up at once); never after `cancel`. The socket stays the caller's."""

    __slots__ = ("_done", "_poller", "_sock", "_timer")

    def __init__(self, poller: Poller, sock: socket.socket, target: Endpoint, timeout: float, done: Done) -> None:
        self._poller = poller
        self._sock = sock
        self._done: Done | None = done
        self._timer: asyncio.TimerHandle | None = None
        address = (text_of(target.ip), target.port)
        code = sock.connect_ex(address)
        if code in _UNDER_WAY:
            # Asked a second time the kernel says whether it came up meanwhile, which spares a turn of the loop.
            code = sock.connect_ex(address)
        if code in _UNDER_WAY:
            poller.watch(sock.fileno(), WRITE, self._writable)
            self._timer = poller.loop.call_later(timeout, self._expired)
        else:
            self._finish(None if code in _DONE else OSError(code, os.strerror(code)))

    def cancel(self) -> None:
        """Forget the attempt."""
        self._done = None
        self._release()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._poller.leave(self._sock.fileno())

    def _writable(self, events: int) -> None:
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._finish(OSError(code, os.strerror(code)) if code else None)

    def _expired(self) -> None:
        self._finish(TimeoutError(errno.ETIMEDOUT, "connection timed out"))

    def _finish(self, error: OSError | None) -> None:
        self._release()
        done, self._done = self._done, None
        if done is not None:
            done(error)
