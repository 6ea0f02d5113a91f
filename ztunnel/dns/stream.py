"""DNS over TCP: messages, each after its length. Compiled, as what derives from a compiled class has to be."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

from ztunnel.proxy.plane import Plane
from ztunnel.proxy.socket_end import SocketEnd


class MessageEnd(SocketEnd):
    """A TCP connection that carries DNS messages, each after its length."""

    __slots__ = ("_buffer", "_lost", "_plane", "_received")

    def __init__(
        self, plane: Plane, sock: socket.socket, received: Callable[[bytes], None], lost: Callable[[], None]
    ) -> None:
        super().__init__(plane.poller, sock, 1 << 18, plane.crashed)
        self._plane = plane
        self._received = received
        self._lost = lost
        self._buffer = bytearray()

    def send(self, message: bytes) -> None:
        """Send one message."""
        self.push(struct.pack(">H", len(message)) + message)

    def on_readable(self) -> None:
        try:
            size = self._recv_into(self._plane.buffers.net[:65_536])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.fail(error)
            return
        if not size:
            self.fail(None)
            return
        self._buffer += self._plane.buffers.net[:size]
        while not self.closed and len(self._buffer) >= 2:
            end = 2 + int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < end:
                break
            message = bytes(self._buffer[2:end])
            del self._buffer[:end]
            self._received(message)

    def on_lost(self, error: OSError | None) -> None:
        self._lost()

    def on_relieved(self) -> None:
        """A client that does not read is closed by its idle timer."""
