"""Driving a sans-I/O HTTP/2 connection in tests: an owner that collects, a sink that records, peers from h2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from ztunnel.hbone import frames
from ztunnel.hbone.connection import Connection
from ztunnel.hbone.headers import request_prefix
from ztunnel.hbone.limits import Limits, Violation
from ztunnel.hbone.message import Answer, Request
from ztunnel.hbone.stream import Sink, Stream

CONNECT = [(b":method", b"CONNECT"), (b":authority", b"10.0.0.1:80")]


class Recording:
    """A sink that remembers everything; `hold` makes it keep data instead of consuming it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.pieces: list[int] = []
        """How many octets came at a time."""
        self.answer: Answer | None = None
        self.ended = False
        self.reset: tuple[int, bool] | None = None
        self.room = 0
        self.hold = False

    def on_answer(self, answer: Answer) -> None:
        self.answer = answer

    def on_data(self, data: memoryview) -> bool:
        self.data += data
        self.pieces.append(len(data))
        return not self.hold

    def on_end(self) -> None:
        self.ended = True

    def on_reset(self, code: int, *, untouched: bool) -> None:
        self.reset = (code, untouched)

    def on_room(self) -> None:
        self.room += 1


class Side:
    """Our connection with everything it said and did."""

    def __init__(self, *, client: bool, limits: Limits | None = None) -> None:
        self.out = bytearray()
        self.requests: list[tuple[Stream, Request, Recording]] = []
        self.violations: list[Violation] = []
        self.going_away = 0
        self.core = Connection(self, client=client, limits=limits)
        self.core.start()

    def write(self, data: bytes | memoryview) -> None:
        self.out += data

    def on_request(self, stream: Stream, request: Request) -> Sink:
        sink = Recording()
        self.requests.append((stream, request, sink))
        return sink

    def on_going_away(self) -> None:
        self.going_away += 1

    def on_violation(self, violation: Violation) -> None:
        self.violations.append(violation)

    def take(self) -> bytes:
        out = bytes(self.out)
        self.out.clear()
        return out

    def receive(self, data: bytes, step: int = 0) -> None:
        """Feed octets, all at once or `step` at a time."""
        for at in range(0, len(data), step or len(data) or 1):
            self.core.receive(memoryview(data[at : at + step] if step else data))

    @property
    def reasons(self) -> list[str]:
        return [violation.reason for violation in self.violations]

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """Take what was written as (type, flags, stream, payload)."""
        return cut(self.take().removeprefix(frames.PREFACE))


def cut(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Octets as frames."""
    found, at = [], 0
    while at < len(data):
        high, low, kind, flags, stream = frames.HEADER.unpack_from(data, at)
        size = high << 8 | low
        found.append((kind, flags, stream, data[at + 9 : at + 9 + size]))
        at += 9 + size
    return found


def send(stream: Stream, data: bytes) -> None:
    """Send payload as the relay does: frames made in place, in a buffer with room for their headers."""
    largest = stream.connection.peer_max_frame
    buffer = memoryview(bytearray(9) + data + bytearray(9 * (len(data) // largest)))
    stream.connection.write(bytes(buffer[: stream.fill(buffer, len(data))]))


class Oracle:
    """h2 in the other role."""

    def __init__(self, *, client: bool, settings: dict[int, int] | None = None) -> None:
        config = h2.config.H2Configuration(client_side=client, header_encoding=None)
        self.h2 = h2.connection.H2Connection(config)
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=client, initial_values=settings)
        self.h2.initiate_connection()
        self.events: list[Any] = []

    def take(self) -> bytes:
        return self.h2.data_to_send() or b""

    def receive(self, data: bytes) -> None:
        self.events += self.h2.receive_data(data)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def data(self, stream: int | None = None) -> bytes:
        parts: Iterable[Any] = self.of(h2.events.DataReceived)
        return b"".join(part.data for part in parts if stream in (None, part.stream_id))

    def credit(self) -> None:
        """Open the windows again for everything received so far."""
        for event in self.of(h2.events.DataReceived):
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.events = [event for event in self.events if not isinstance(event, h2.events.DataReceived)]


def exchange(side: Side, oracle: Oracle, step: int = 0) -> None:
    """Carry octets both ways until nobody has anything to say."""
    while True:
        ours, theirs = side.take(), oracle.take()
        if not ours and not theirs:
            return
        if ours:
            oracle.receive(ours)
        if theirs:
            side.receive(theirs, step)


def opened(step: int = 0, limits: Limits | None = None) -> tuple[Side, Oracle, Recording, int]:
    """Our client with one stream answered by an h2 server."""
    side, oracle = Side(client=True, limits=limits), Oracle(client=False)
    sink = Recording()
    stream = side.core.open(request_prefix(b"10.0.0.1:80", b"a=b"), sink)
    exchange(side, oracle, step)
    oracle.h2.send_headers(stream.id, [(b":status", b"200"), (b"baggage", b"c=d")])
    exchange(side, oracle, step)
    return side, oracle, sink, stream.id


def overfull() -> tuple[Side, Oracle, Stream]:
    """Our server with one stream that holds 400,000 octets, a whole window of the connection; 300,000 may be held."""
    limits = Limits(connection_window=400_000, stream_window=1 << 20, max_held=300_000)
    side, oracle = Side(client=False, limits=limits), Oracle(client=True)
    exchange(side, oracle)
    oracle.h2.send_headers(1, CONNECT)
    exchange(side, oracle)
    stream, _, sink = side.requests[0]
    sink.hold = True
    for _ in range(4):
        oracle.h2.send_data(1, bytes(100_000))
        exchange(side, oracle)
    return side, oracle, stream
