"""Taking connections from listening sockets that several workers share."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

from ztunnel.proxy.poller import READ, Poller
from ztunnel.proxy.sockets import BARE_SOCKET

PER_WAKEUP: Final = 8
"""More would be one worker's of a crowd that comes at once."""
_QUEUE: Final = 4_096
_PAUSE_S: Final = 0.05
_YIELD_S: Final = 0.002
_TAKEN_OVER: Final = 4
"""By who let others go first in vain: of a crowd the others still get theirs when they have time again."""
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def _never() -> bool:
    return False


class Acceptor:
    """Accepts on `sock` (owned) and hands each connection, non-blocking, to `take(connection, peer name)`. `pause` says
    before each how many seconds it has to wait yet; what waits then waits in the kernel.

    At most `at_once` connections per wake-up, so that other workers get theirs; while `ahead` says true others, who
    were woken too, go first. When descriptors run out it pauses a moment instead of spinning, and counts.
    """

    __slots__ = (
        "_ahead",
        "_at_once",
        "_count",
        "_crashed",
        "_kind",
        "_pause",
        "_poller",
        "_sock",
        "_take",
        "_take_one",
        "_timer",
    )

    def __init__(
        self,
        poller: Poller,
        sock: socket.socket,
        take: Callable[[socket.socket, tuple[object, ...]], None],
        count: Callable[[str], None],
        crashed: Callable[[str, BaseException], None],
        pause: Callable[[], float] = lambda: 0.0,
        ahead: Callable[[], bool] | None = None,
        at_once: int = PER_WAKEUP,
    ) -> None:
        sock.setblocking(False)
        # `socket.accept` makes enumerations of the listener's family and type for every connection.
        self._take_one: Callable[[], tuple[int, tuple[object, ...]]] = sock._accept  # type: ignore[attr-defined]
        self._kind = (int(sock.family), int(sock.type), sock.proto)
        self._pause = pause
        self._ahead = ahead or _never
        self._at_once = at_once
        self._poller = poller
        self._sock = sock
        self._take = take
        self._count = count
        self._crashed = crashed
        self._timer: asyncio.TimerHandle | None = None
        self._resume()

    @property
    def fd(self) -> int:
        return self._sock.fileno()

    def _resume(self) -> None:
        self._timer = None
        self._poller.watch(self._sock.fileno(), READ, self._ready)

    def _ready(self, events: int) -> None:
        self._accept(self._at_once, polite=True)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        """Leave what comes meanwhile in the kernel."""
        self._poller.leave(self._sock.fileno())
        self._timer = self._poller.loop.call_later(seconds, then)

    def _take_over(self) -> None:
        """Nobody else took them in time, or there are others."""
        self._resume()
        self._accept(min(_TAKEN_OVER, self._at_once))

    def _accept(self, at_most: int, *, held: bool = True, polite: bool = False) -> None:
        for _ in range(at_most):
            if polite and self._ahead():
                self._wait(_YIELD_S, self._take_over)
                return
            if held and (seconds := self._pause()) > 0:
                self._wait(seconds, self._resume)
                return
            try:
                descriptor, peer = self._take_one()
                connection = BARE_SOCKET(*self._kind, descriptor)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno == errno.EINVAL:
                    # Somebody who holds it too has stopped it for all.
                    self._poller.leave(self._sock.fileno())
                    return
                self._count("accept_errors")
                if error.errno in _OUT_OF_RESOURCES:
                    self._wait(_PAUSE_S, self._resume)
                return
            connection.setblocking(False)
            try:
                self._take(connection, peer)
            except OSError:
                # The client was gone before we asked who it is.
                connection.close()
            except Exception as error:
                connection.close()
                self._crashed("accept", error)

    def finish(self) -> None:
        """Take what waits in the queue, then no more; the socket stays open."""
        self.pause()
        self._accept(_QUEUE, held=False)
        self.pause()

    def pause(self) -> None:
        """Accept no more; the socket stays open."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._poller.leave(self._sock.fileno())

    def close(self) -> None:
        """Accept no more and give up our handle of the socket."""
        if self._sock.fileno() >= 0:
            self.pause()
            self._sock.close()
