"""The connection to the director: made again whenever it breaks; what cannot be sent meanwhile is refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

from ztunnel.ipc.channel import Channel

RETRY_S: Final = 0.01
"""How soon to look for a restarted director again; a failed attempt costs two system calls."""


class Link:
    """`on_up` is called when a director is there; `on_message` as in Channel; `on_down` when it is gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        *,
        on_up: Callable[[], None],
        on_message: Callable[[object, list[int]], None],
        on_down: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._path = path
        self._on_up = on_up
        self._on_message = on_message
        self._on_down = on_down
        self._channel: Channel | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def up(self) -> bool:
        return self._channel is not None

    def connect(self) -> None:
        """Look for the director now, then again and again."""
        self._timer = None
        if self._closed:
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            self._timer = self._loop.call_later(RETRY_S, self.connect)
            return
        self._channel = Channel(self._loop, sock, self._on_message, self._lost)
        self._on_up()

    def send(self, message: object, fds: Sequence[int] = ()) -> bool:
        """Send if there is a director."""
        if self._channel is None:
            return False
        self._channel.send(message, fds)
        return True

    def close(self) -> None:
        """Hang up for good; what is buffered is sent if the kernel takes it."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _lost(self) -> None:
        self._channel = None
        self._on_down()
        if not self._closed:
            self._timer = self._loop.call_later(RETRY_S, self.connect)
