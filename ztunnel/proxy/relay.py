"""Bytes in both directions between an application's socket and a tunnel stream or another socket.

Each direction ends on its own (half-close). A side that cannot take more stops the other from being read, so a
stalled reader costs its socket's high-water mark plus, over a tunnel, one stream window. An abortive close on one
side becomes an abortive close on the other.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, Protocol

from ambient.errors import MeshError
from ztunnel.hbone.frames import Code
from ztunnel.hbone.message import Answer
from ztunnel.hbone.stream import Stream
from ztunnel.proxy.gathered import Gathered
from ztunnel.proxy.poller import Poller
from ztunnel.proxy.socket_end import Buffers, SocketEnd
from ztunnel.proxy.tunnel import LOST, Waiting
from ztunnel.telemetry.record import Failure, Flag
from ztunnel.tls.revocation import PeerRevoked

APP_HIGH_WATER: Final = 256 * 1024
TUNNEL_LOST: Final = Failure(Flag.CONNECT, "tunnel connection lost")


def lost_because(death: Exception | None) -> Failure:
    """Why a stream was lost with the connection below."""
    return death.failure if isinstance(death, PeerRevoked) else TUNNEL_LOST


class Flow(Protocol):
    """Whoever set up the relay and keeps its record."""

    def ended(self, failure: Failure | None) -> None:
        """Both directions are over; called once."""


class Below(Protocol):
    """The tunnel that a stream is in."""

    congested: bool
    gathered: Gathered
    death: MeshError | OSError | None

    def await_relief(self, end: Waiting) -> None:
        """Call `on_room` when it is no longer congested."""


class TunnelledEnd(SocketEnd):
    """An application's socket joined to a stream. It becomes the stream's sink."""

    __slots__ = (
        "_owed",
        "_read_done",
        "_write_done",
        "flow",
        "given",
        "stream",
        "taken",
        "tunnel",
    )

    def __init__(
        self,
        poller: Poller,
        sock: socket.socket,
        tunnel: Below,
        stream: Stream,
        flow: Flow,
        buffers: Buffers,
        crashed: Callable[[str, BaseException], None],
    ) -> None:
        super().__init__(poller, sock, APP_HIGH_WATER, crashed, buffers.chunks)
        self.guard()
        self.tunnel = tunnel
        self.stream = stream
        self.flow = flow
        self.taken = 0
        self.given = 0
        self._owed = 0
        self._read_done = False
        self._write_done = False

    # --- application to tunnel

    def on_readable(self) -> None:
        stream, tunnel = self.stream, self.tunnel
        room = stream.room()
        if room <= 0 or tunnel.congested:
            self.stop_reading()
            if room <= 0:
                stream.await_room()
            else:
                tunnel.await_relief(self)
            return
        space = tunnel.gathered.space()
        most = stream.fits(len(space))
        try:
            size = self._recv_into(space[9 : 9 + (most if most < room else room)])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.fail(error)
            return
        if size:
            self.taken += size
            tunnel.gathered.put(stream.fill(space, size))
            return
        self._read_done = True
        stream.end()
        if self._write_done:
            self._complete(None)
        else:
            self.stop_reading()

    def on_room(self) -> None:
        """There is room in the stream or the tunnel again."""
        if not self._read_done:
            self.start_reading()

    # --- tunnel to application (Sink)

    def on_answer(self, answer: Answer) -> None:
        """Answers are handled before a stream is relayed."""

    def on_data(self, data: memoryview) -> bool:
        size = len(data)
        self.given += size
        self.push(data)
        if self.congested:
            self._owed += size
            return False
        return True

    def on_relieved(self) -> None:
        owed, self._owed = self._owed, 0
        self.stream.consumed(owed)

    def on_end(self) -> None:
        if self._read_done and not self.backlog_size and not self.closed:
            # Both directions are over: closing says so, as everything the application sent was read.
            self._write_done = True
            self._complete(None)
        else:
            self.end_writing()

    def on_written_end(self) -> None:
        self._write_done = True
        if self._read_done:
            self._complete(None)

    def on_reset(self, code: int, *, untouched: bool) -> None:
        if code == Code.NO_ERROR and self._ending and not self.closed:
            # The peer has said all it had to say and wants no more: what was received still goes out. Without the end
            # before it the same code is a broken stream (Envoy resets with it whatever went wrong).
            self._read_done = True
            self.stop_reading()
            if self._write_done:
                self._complete(None)
            return
        self.abort()
        self._complete(lost_because(self.tunnel.death) if code == LOST else None)

    # --- ends

    def on_lost(self, error: OSError | None) -> None:
        """The application reset its connection, or our handling of it crashed."""
        self.stream.reset(Code.CONNECT_ERROR)
        self._complete(None)

    def cut(self, failure: Failure) -> None:
        """End both sides abruptly."""
        self.stream.reset(Code.CANCEL)
        self.abort()
        self._complete(failure)

    def _complete(self, failure: Failure | None) -> None:
        self.close()
        flow, self.flow = self.flow, _OVER
        flow.ended(failure)


class PlainEnd(SocketEnd):
    """One of two sockets joined to each other."""

    __slots__ = ("_net", "_read_done", "_write_done", "flow", "given", "other", "taken")

    def __init__(
        self,
        poller: Poller,
        sock: socket.socket,
        flow: Flow,
        buffers: Buffers,
        crashed: Callable[[str, BaseException], None],
    ) -> None:
        super().__init__(poller, sock, APP_HIGH_WATER, crashed, buffers.chunks)
        self.guard()
        self.flow = flow
        self.other = self
        self.taken = 0
        self.given = 0
        self._net = buffers.net
        self._read_done = False
        self._write_done = False

    def on_readable(self) -> None:
        other = self.other
        if other.congested:
            self.stop_reading()
            return
        try:
            size = self._recv_into(self._net)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.fail(error)
            return
        if size:
            self.taken += size
            other.given += size
            other.push(self._net[:size])
            return
        self.stop_reading()
        self._read_done = True
        other.end_writing()

    def on_relieved(self) -> None:
        if not self.other._read_done:
            self.other.start_reading()

    def on_written_end(self) -> None:
        self._write_done = True
        if self._read_done and self.other._write_done:
            self._complete(None)

    def on_lost(self, error: OSError | None) -> None:
        self.other.abort()
        self._complete(None)

    def cut(self, failure: Failure) -> None:
        """End both sides abruptly."""
        self.abort()
        self.other.abort()
        self._complete(failure)

    def _complete(self, failure: Failure | None) -> None:
        self.close()
        self.other.close()
        flow, self.flow, self.other.flow = self.flow, _OVER, _OVER
        flow.ended(failure)


def join(client: PlainEnd, server: PlainEnd) -> None:
    """Relay between two sockets from now on."""
    client.other, server.other = server, client
    client.start_reading()
    server.start_reading()


class _Over:
    """The flow of a relay that has already told its end."""

    __slots__ = ()

    def ended(self, failure: Failure | None) -> None:
        """Nothing is left to tell."""


_OVER: Final = _Over()
