"""Readiness of a worker's sockets: an epoll set that is the event loop's own wait (`ztunnel/proxy/loop.py`).

The loop waits here, and stays here while only these sockets have something: all that is ready is handled in one go,
and what the handlers put off until then (`at_end`) right after the last of them. Only when a descriptor, a call or a
timer of the loop's own is due does it go round. That spares the loop's work per event and its system calls per socket,
and unlike the loop it tells of errors of sockets that are neither read nor written: a reset, or a peer that keepalive
found gone, is heard of at once.
"""

from __future__ import annotations

import asyncio
import math
import select
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
BROKEN: Final = select.EPOLLERR | select.EPOLLHUP
"""Told unasked: an error, or both directions have ended."""
_MOST: Final = 256
"""Events of one turn: what a crowd may do before the loop's timers and the director have theirs."""


class Poller:
    """One per loop, whose exception handler hears of exceptions of handlers; the descriptor of one that raised is left.
    `others` is ready when one of the loop's other descriptors is."""

    __slots__ = ("_epoll", "_events", "_handlers", "_late", "_left", "_others", "_until", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, others: int) -> None:
        self.loop = loop
        self._others = others
        self._epoll = select.epoll()
        self._epoll.register(others, READ)
        self._events: Iterator[tuple[int, int]] = iter(())
        """Fetched and not yet handled."""
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._left: set[int] = set()
        """Left since events were fetched: one that was fetched before is not for whoever has the number now."""
        self._late: list[Callable[[], None]] = []
        self._until = 0.0

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
        """Call it once, after the events of this turn, or before the loop waits again."""
        self._late.append(call)

    # --- for the loop

    def wait(self, timeout: float | None) -> bool:
        """Handle what is ready, again and again, until the loop has something to do: a descriptor (True), or a call or
        a timer, after `timeout` seconds (None: never) or by `wake_by` (False)."""
        handlers, left, others, polled = self._handlers, self._left, self._others, False
        self._until = math.inf if timeout is None else monotonic() + timeout
        while True:
            for fd, events in self._events:
                if fd == others:
                    # In its turn, not after the rest: what the director said before a connection came counts for it.
                    self._finish()
                    return True
                handler = handlers.get(fd)
                if handler is None or fd in left:
                    continue
                try:
                    handler(events)
                except Exception as error:
                    self.leave(fd)
                    self._crashed("event", error)
            self._finish()
            now = monotonic()
            if polled and now >= self._until:
                return False
            left.clear()
            # A time below zero would be none at all.
            seconds = None if self._until == math.inf else max(0.0, self._until - now)
            self._events = iter(self._epoll.poll(seconds, _MOST))
            polled = True

    def wake_by(self, when: float) -> None:
        """The loop has something to do at that time of its clock."""
        if when < self._until:
            self._until = when

    def close(self) -> None:
        """The loop is being closed: watch nothing any more, and mind nobody who leaves after that."""
        self._handlers.clear()
        self._late.clear()
        self._epoll.close()

    def _finish(self) -> None:
        while self._late:
            late, self._late = self._late, []
            for call in late:
                try:
                    call()
                except Exception as error:
                    self._crashed("end of turn", error)

    def _crashed(self, where: str, error: Exception) -> None:
        self.loop.call_exception_handler({"message": where, "exception": error})
