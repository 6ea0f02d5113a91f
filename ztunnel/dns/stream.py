"""DNS over TCP: messages, each after its length. Compiled, as what derives from a compiled class has to be."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Final

from ztunnel.proxy.backlog import Chunks
from ztunnel.proxy.plane import Plane
from ztunnel.proxy.socket_end import SocketEnd

_AT_ONCE: Final = 512
"""Octets that are read at a time: a dozen questions, then it is the turn of others."""
_UNREAD_LIMIT: Final = 1 << 20
"""Octets of answers that nobody reads at which the connection is ended: those to questions that were under way."""


class MessageEnd(SocketEnd):
    """A TCP connection that carries DNS messages, each after its length. Who asks on and reads no answers is not heard
    any more: whoever has it closes it then, as one on which nothing is said.

    `ended`: the other side says no more, but may still listen; without it the connection is lost then, as it is after
    `end_writing`, when all was said from here too."""

    __slots__ = ("_buffer", "_ended", "_lost", "_plane", "_received", "heard_all")

    def __init__(
        self,
        plane: Plane,
        sock: socket.socket,
        received: Callable[[bytes], None],
        lost: Callable[[], None],
        chunks: Chunks | None = None,
        ended: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(plane.poller, sock, 1 << 18, plane.crashed, chunks)
        self._plane = plane
        self._received = received
        self._lost = lost
        self._ended = ended
        self.heard_all = False
        """The other side says no more."""
        self._buffer = bytearray()

    def send(self, message: bytes) -> None:
        """Send one message."""
        self.push(struct.pack(">H", len(message)) + message)
        if self.backlog_size > _UNREAD_LIMIT:
            self.fail(None)

    def on_readable(self) -> None:
        try:
            size = self._recv_into(self._plane.buffers.net[:_AT_ONCE])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.fail(error)
            return
        if not size:
            if self._ended is None:
                self.fail(None)
                return
            self.heard_all = True
            self.stop_reading()
            self._ended()
            return
        self._buffer += self._plane.buffers.net[:size]
        self._hand_on()

    def _hand_on(self) -> None:
        """Hand on what is whole, as long as the other side takes what it is answered."""
        while not self.closed and not self.congested and len(self._buffer) >= 2:
            end = 2 + int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < end:
                break
            message = bytes(self._buffer[2:end])
            del self._buffer[:end]
            self._received(message)
        if self.congested:
            self.stop_reading()

    def on_lost(self, error: OSError | None) -> None:
        self._lost()

    def on_relieved(self) -> None:
        self._hand_on()
        if not self.congested and not self.heard_all:
            self.start_reading()

    def on_written_end(self) -> None:
        self.fail(None)
