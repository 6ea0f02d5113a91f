"""Readiness of a worker's sockets: an epoll set of our own that the event loop watches as one descriptor.

Told that something is ready, it handles all that is ready in one go, and what the handlers put off until then
(`at_end`) right after the last of them. That spares the loop's work per event and its system calls per socket, and
unlike the loop it tells of errors of sockets that are neither read nor written: a reset, or a peer that keepalive
found gone, is heard of at once.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
BROKEN: Final = select.EPOLLERR | select.EPOLLHUP
"""Told unasked: an error, or both directions have ended."""
_MOST: Final = 256
"""Events of one turn: what a crowd may do before the loop's timers and the director have theirs."""


class Poller:
    """One per worker. `crashed` hears of exceptions of handlers; the descriptor of one that raised is left."""

    __slots__ = ("_crashed", "_epoll", "_handlers", "_late", "_left", "_turning", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, crashed: Callable[[str, BaseException], None]) -> None:
        self.loop = loop
        self._crashed = crashed
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._left: set[int] = set()
        """Left in this turn: an event that was fetched before is not for whoever has the number now."""
        self._late: list[Callable[[], None]] = []
        self._turning = False
        loop.add_reader(self._epoll.fileno(), self._turn)

    def __len__(self) -> int:
        return len(self._handlers)

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call `handler` with the events whenever one of `events` or BROKEN is there, instead of what was before."""
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def leave(self, fd: int) -> None:
        """Watch no more what stays open, here or in another process."""
        if self._handlers.pop(fd, None) is not None:
            self._left.add(fd)
            self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """The descriptor is about to be closed and nobody else has the socket: the kernel takes it out of the set."""
        if self._handlers.pop(fd, None) is not None:
            self._left.add(fd)

    def at_end(self, call: Callable[[], None]) -> None:
        """Call it once, after the events of this turn."""
        if not self._turning and not self._late:
            self.loop.call_soon(self._finish)
        self._late.append(call)

    def _turn(self) -> None:
        handlers, left = self._handlers, self._left
        left.clear()
        self._turning = True
        for fd, events in self._epoll.poll(0, _MOST):
            handler = handlers.get(fd)
            if handler is None or fd in left:
                continue
            try:
                handler(events)
            except Exception as error:
                self.leave(fd)
                self._crashed("event", error)
        self._turning = False
        self._finish()

    def _finish(self) -> None:
        while self._late:
            late, self._late = self._late, []
            for call in late:
                try:
                    call()
                except Exception as error:
                    self._crashed("end of turn", error)
