"""Watches sockets for a death that the loop does not tell.

A relay does not read from an application while the other side is congested, nor after its end, and about a descriptor
that it is not asked to read or write the loop tells nothing: a reset, or a peer that keepalive found gone, would stay
unseen until somebody writes. And where a reset comes right behind octets, uvloop tells of both at once and then never
again, because libuv stops watching a descriptor with an error: a reader that takes one piece at a time would wait for
ever. So all descriptors are in an epoll set of their own, asked for errors only, once a second: a connection that is
shorter costs nothing but a place in a set.
"""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from ztunnel.proxy.socket_end import SocketEnd


class Lookout:
    """One per worker. `crashed` hears of exceptions of the handlers of a dead socket."""

    __slots__ = ("_crashed", "_epoll", "_fresh", "_watched")

    def __init__(self, crashed: Callable[[str, BaseException], None]) -> None:
        self._crashed = crashed
        self._epoll = select.epoll()
        self._fresh: set[SocketEnd] = set()
        self._watched: dict[int, SocketEnd] = {}

    def __len__(self) -> int:
        return len(self._fresh) + len(self._watched)

    def watch(self, end: SocketEnd) -> None:
        """From now on, until `leave`."""
        self._fresh.add(end)

    def leave(self, end: SocketEnd) -> None:
        """It is about to be closed. Also for one that was not watched."""
        self._fresh.discard(end)
        if self._watched.get(end.fd) is end:
            del self._watched[end.fd]
            self._epoll.unregister(end.fd)

    def tick(self) -> None:
        """Once a second: end those that failed."""
        fresh, self._fresh = self._fresh, set()
        for end in fresh:
            # No events asked for: errors and hang-ups are always told.
            self._epoll.register(end.fd, 0)
            self._watched[end.fd] = end
        if not self._watched:
            return
        for fd, _ in self._epoll.poll(0, len(self._watched)):
            failed = self._watched.get(fd)
            # Hung up without an error is one that ended in both directions; what it said may still be unread.
            code = failed.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if failed is not None else 0
            if failed is not None and code:
                try:
                    failed.fail(OSError(code, os.strerror(code)))
                except Exception as error:
                    self._crashed(type(failed).__name__, error)
