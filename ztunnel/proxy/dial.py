"""Connecting a socket without waiting for it, with a deadline; or several, where nobody answers the first at once."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from ambient.errors import MeshError
from ambient.model.address import Endpoint
from ztunnel.addresses import text_of
from ztunnel.proxy.poller import WRITE, Poller

_DONE: Final = (0, errno.EISCONN)
_ANSWERS: Final = (errno.ECONNREFUSED, errno.ECONNRESET)
"""Errors that came from the other end."""
_UNDER_WAY: Final = (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK)

AGAIN_S: Final = 0.2
ATTEMPTS: Final = 5
"""The kernel repeats an unanswered SYN after a second. So many attempts, that far apart, ask five times as often."""

Done = Callable[[OSError | None], None]
Got = Callable[[socket.socket | OSError], None]


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


class Dials:
    """One connection to a proxy, of which the first attempt may go unheard: where a pod's proxy is being started, SYNs
    are dropped, not refused. Until something answers there are more and more attempts beside each other.

    `make()` gives a socket for each (raises MeshError). `done(socket)` or `done(error)` is called as in Dial, an error
    when the other end has refused or no attempt is left; that socket is the caller's then, the others are closed.
    """

    __slots__ = ("_begun", "_done", "_make", "_poller", "_target", "_timer", "_under_way", "_until")

    def __init__(
        self, poller: Poller, make: Callable[[], socket.socket], target: Endpoint, timeout: float, done: Got
    ) -> None:
        """Raises MeshError when there is no socket for the first attempt."""
        self._poller = poller
        self._make = make
        self._target = target
        self._until = poller.loop.time() + timeout
        self._done: Got | None = done
        self._begun = 0
        self._under_way: dict[socket.socket, Dial | None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._begin(make())

    def cancel(self) -> None:
        """Forget every attempt."""
        self._done = None
        self._end(None)

    def _begin(self, sock: socket.socket) -> None:
        self._begun += 1
        self._under_way[sock] = None
        left = max(0.0, self._until - self._poller.loop.time())
        dial = Dial(self._poller, sock, self._target, left, partial(self._finished, sock))
        if self._done is None:
            return
        if sock in self._under_way:
            self._under_way[sock] = dial
        if self._begun < ATTEMPTS:
            self._timer = self._poller.loop.call_later(AGAIN_S, self._again)

    def _again(self) -> None:
        self._timer = None
        try:
            sock = self._make()
        except MeshError:
            return  # what is under way may still come up
        self._begin(sock)

    def _finished(self, sock: socket.socket, error: OSError | None) -> None:
        if error is not None and error.errno not in _ANSWERS and len(self._under_way) > 1:
            del self._under_way[sock]  # what went wrong here says nothing about the others
            sock.close()
            return
        done, self._done = self._done, None
        self._end(None if error is not None else sock)
        if done is not None:
            done(sock if error is None else error)

    def _end(self, kept: socket.socket | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for sock, dial in self._under_way.items():
            if dial is not None:
                dial.cancel()
            if sock is not kept:
                sock.close()
        self._under_way.clear()
