"""One CONNECT stream: its two halves, its windows, and what its user may do with it.

The user is a `Sink`. A stream that ended (both halves done, or reset by either side) is silent: every call is a
no-op and the sink hears nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ztunnel.hbone import frames
from ztunnel.hbone.message import Answer

if TYPE_CHECKING:
    from ztunnel.hbone.connection import Connection


class Sink(Protocol):
    """What happens on a stream, told to whoever uses it. Calls come from inside `Connection.receive`."""

    def on_answer(self, answer: Answer) -> None:
        """Client role: the final answer to our CONNECT."""

    def on_data(self, data: memoryview) -> bool:
        """Payload, valid only during the call. True: consumed; False: `Stream.consumed` will be called later."""

    def on_end(self) -> None:
        """The peer will send no more; we may go on sending."""

    def on_reset(self, code: int, *, untouched: bool) -> None:
        """The stream is gone. `untouched`: the peer has certainly not acted on it, so it may be tried elsewhere."""

    def on_room(self) -> None:
        """After `await_room`: there is room to send again."""


class Stream:
    """State of one stream. Windows in octets."""

    __slots__ = (
        "answered",
        "connection",
        "id",
        "local_done",
        "outstanding",
        "receive_window",
        "remote_done",
        "send_window",
        "sink",
        "steady",
        "unreturned",
        "window",
    )

    def __init__(self, connection: Connection, stream_id: int, sink: Sink | None) -> None:
        self.connection = connection
        self.id = stream_id
        self.sink = sink
        self.send_window = connection.peer_initial_window
        self.receive_window = self.window = connection.limits.stream_window
        self.steady = 0
        """Octets that were taken at once since the window has its size."""
        self.outstanding = 0
        self.unreturned = 0
        self.answered = False
        self.local_done = False
        self.remote_done = False

    @property
    def alive(self) -> bool:
        return self.id in self.connection.streams

    def room(self) -> int:
        """Octets that may be sent now (may be negative after the peer shrank its window)."""
        stream, connection = self.send_window, self.connection.send_window
        return stream if stream < connection else connection

    def await_room(self) -> None:
        """Ask for one `on_room` when `room()` has become positive."""
        self.connection.blocked[self.id] = self

    def fits(self, octets: int) -> int:
        """How many octets of payload `fill` can turn into frames of at most `octets` in all (more than 9)."""
        largest = self.connection.peer_max_frame
        return octets - 9 if octets - 9 <= largest else octets // (largest + 9) * largest

    def fill(self, buffer: memoryview, size: int) -> int:
        """Make `size` (1..room() and fits()) octets at buffer[9:] DATA, in place, and count them as sent; how many
        octets from the start of the buffer the caller has to send now. The nine octets before them become the header;
        for a peer with small frames the octets move apart to let the headers of the others in."""
        connection = self.connection
        if self.local_done or self.id not in connection.streams:
            return 0
        self.send_window -= size
        connection.send_window -= size
        largest = connection.peer_max_frame
        if size <= largest:
            frames.HEADER.pack_into(buffer, 0, size >> 8, size & 255, frames.DATA, 0, self.id)
            return 9 + size
        last = (size - 1) // largest
        for number in range(last, -1, -1):
            part = min(largest, size - number * largest)
            at, to = 9 + number * largest, number * (largest + 9)
            if number:
                buffer[to + 9 : to + 9 + part] = buffer[at : at + part]
            frames.HEADER.pack_into(buffer, to, part >> 8, part & 255, frames.DATA, 0, self.id)
        return size + 9 * (last + 1)

    def answer(self, block: bytes, *, end: bool = False) -> None:
        """Server role: send the answer's header block; `end` also ends our half."""
        connection = self.connection
        if self.id not in connection.streams or self.answered:
            return
        self.answered = True
        connection.send_headers(self.id, block, end=end)
        connection.costs.answered()
        if end:
            self._local_end()

    def end(self) -> None:
        """We will send no more (END_STREAM); the other direction goes on."""
        if self.local_done or self.id not in self.connection.streams:
            return
        self.connection.write(frames.HEADER.pack(0, 0, frames.DATA, frames.END_STREAM, self.id))
        self._local_end()

    def _local_end(self) -> None:
        self.local_done = True
        if self.remote_done:
            self.connection.forget(self)

    def reset(self, code: int) -> None:
        """End both directions at once with RST_STREAM; the sink hears nothing more."""
        if self.id in self.connection.streams:
            self.connection.forget(self)
            self.connection.write(frames.rst_stream(self.id, code))
            self.connection.costs.cut_off()

    def consumed(self, size: int) -> None:
        """`size` octets that `on_data` kept have been passed on: reopen the windows by as much.

        Who keeps octets does not need a grown window: it shrinks by what was kept.
        """
        connection = self.connection
        if self.id not in connection.streams:
            return
        self.outstanding -= size
        connection.held -= size
        self.steady = 0
        shrink = min(size, self.window - connection.limits.stream_window)
        self.window -= shrink
        connection.growth += shrink
        self.give_back(size - shrink)
        connection.give_back()

    def give_back(self, size: int) -> None:
        """Count consumed octets and tell the peer in steps of a quarter window."""
        self.unreturned += size
        if self.unreturned >= self.window >> 2 and not self.remote_done:
            more = self.unreturned + self._grow()
            self.connection.write(frames.window_update(self.id, more))
            self.receive_window += more
            self.unreturned = 0

    def release(self) -> None:
        """The stream ended: what it held and had grown by is the connection's again."""
        connection, start = self.connection, self.connection.limits.stream_window
        connection.held -= self.outstanding
        connection.growth += self.window - start
        self.outstanding, self.window = 0, start

    def _grow(self) -> int:
        """By how much the window is to become larger now: it doubles after four windows that nobody kept."""
        connection, limits = self.connection, self.connection.limits
        self.steady = 0 if self.outstanding else self.steady + self.unreturned
        if self.steady < self.window << 2:
            return 0
        self.steady = 0
        more = max(0, min(self.window, limits.grown_window - self.window, connection.growth))
        self.window += more
        connection.growth -= more
        return more
