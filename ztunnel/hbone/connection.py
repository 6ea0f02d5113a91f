"""One HTTP/2 connection that carries CONNECT streams, either role: octets in, octets and events out.

No I/O and no clock: octets to send go to `Owner.write`, which must take them before it returns (buffers are reused);
time comes in with `tick`. After a violation GOAWAY is written, every stream is told, and the owner closes.
"""

from __future__ import annotations

from typing import Protocol

from ztunnel.hbone import frames, settings
from ztunnel.hbone.frames import Code
from ztunnel.hbone.headers import BlockReader
from ztunnel.hbone.limits import CLIENT, SERVER, Limits, Violation
from ztunnel.hbone.message import Request, read_answer, read_request
from ztunnel.hbone.reader import FrameReader
from ztunnel.hbone.stream import Sink, Stream


class Owner(Protocol):
    """Who drives the connection."""

    def write(self, data: bytes | memoryview) -> None:
        """Take octets to send; the memory is reused after the call."""

    def on_request(self, stream: Stream, request: Request) -> Sink:
        """Server role: a new stream; answer it with `Stream.answer` or `Stream.reset`, now or later."""

    def on_going_away(self) -> None:
        """GOAWAY came. To a client: no new streams, the known ones go on. To a server nothing: clients may open on."""

    def on_violation(self, violation: Violation) -> None:
        """Count `violation.counter`. When `Connection.broken` is set, send what was written and close."""


class Connection:
    """State of one connection; `limits` defaults to what we advertise in that role."""

    __slots__ = (
        "_blocks",
        "_controls",
        "_last_rest",
        "_next_id",
        "_owner",
        "_ping_sent",
        "_pong",
        "_reader",
        "blocked",
        "broken",
        "client",
        "draining",
        "going_away",
        "growth",
        "held",
        "last_peer_id",
        "limits",
        "peer_initial_window",
        "peer_max_frame",
        "peer_max_streams",
        "receive_window",
        "reset_debt",
        "send_window",
        "settled",
        "shrink_table",
        "streams",
        "unreturned",
        "write",
    )

    def __init__(self, owner: Owner, *, client: bool, limits: Limits | None = None) -> None:
        self._owner = owner
        self.write = owner.write
        self.client = client
        self.limits = limits or (CLIENT if client else SERVER)
        self.streams: dict[int, Stream] = {}
        self.blocked: dict[int, Stream] = {}
        self.send_window = frames.DEFAULT_WINDOW
        self.receive_window = self.limits.connection_window
        self.held = 0
        self.growth = self.limits.growth
        """How much larger the streams' windows may still become."""
        self.unreturned = 0
        self.peer_initial_window = frames.DEFAULT_WINDOW
        self.peer_max_frame = frames.DEFAULT_FRAME
        self.peer_max_streams = frames.LARGEST_STREAM
        self.last_peer_id = 0
        self.reset_debt = 0
        self.settled = False
        self.going_away = False
        self.draining = False
        self.broken: Violation | None = None
        self._next_id = 1
        self._controls = 0
        self.shrink_table = False
        self._ping_sent: float | None = None
        self._pong = False
        self._last_rest: float | None = None
        self._blocks = BlockReader(self.limits.max_header_list)
        self._reader = FrameReader(self)

    # --- what the owner does

    def start(self) -> None:
        """Write the preface (client), SETTINGS and the connection window."""
        limits = self.limits
        values = [
            (frames.SETTING_INITIAL_WINDOW, limits.stream_window),
            (frames.SETTING_MAX_FRAME, limits.max_frame),
            (frames.SETTING_MAX_HEADER_LIST, limits.max_header_list),
        ]
        if self.client:
            values.insert(0, (frames.SETTING_ENABLE_PUSH, 0))
        else:
            values.insert(0, (frames.SETTING_MAX_STREAMS, limits.max_streams))
        hello = frames.PREFACE if self.client else b""
        more = frames.window_update(0, limits.connection_window - frames.DEFAULT_WINDOW)
        self.write(hello + frames.settings(tuple(values)) + more)

    def receive(self, data: memoryview) -> None:
        """Process octets from the peer."""
        if self.broken is not None:
            return
        try:
            self._reader.receive(data)
        except Violation as violation:
            self.fail(violation)
        else:
            if self.unreturned >= self.limits.connection_window >> 2:
                self.give_back()

    def capacity(self) -> int:
        """Client role: how many streams may be opened now."""
        if self.broken is not None or self.going_away or self._next_id > frames.LARGEST_STREAM:
            return 0
        return min(self.limits.max_streams, self.peer_max_streams) - len(self.streams)

    def open(self, block: bytes, sink: Sink) -> Stream:
        """Client role: send a CONNECT request. The caller has checked `capacity()`."""
        stream = Stream(self, self._next_id, sink)
        self._next_id += 2
        self.streams[stream.id] = stream
        self.send_headers(stream.id, block, end=False)
        return stream

    def send_headers(self, stream_id: int, block: bytes, *, end: bool) -> None:
        """Write a header block, split to the peer's frame size."""
        if self.shrink_table:
            self.shrink_table = False
            block = b"\x20" + block
        self.write(frames.header_frames(stream_id, block, self.peer_max_frame, end=end))

    def drain(self) -> None:
        """Ask the peer to open no more streams; the open ones go on. The final GOAWAY follows on the next tick."""
        if self.broken is None and not self.draining:
            self.draining = True
            last = frames.LARGEST_STREAM if not self.client else 0
            self.write(frames.goaway(last, Code.NO_ERROR))

    def tick(self, now: float) -> None:
        """Once a second, with a monotonic clock: keepalive and the counters that are per second."""
        self._controls = 0
        if self.broken is not None:
            return
        if self.draining and not self.client and not self.going_away:
            self.going_away = True
            self.write(frames.goaway(self.last_peer_id, Code.NO_ERROR))
        if self._last_rest is None or self._pong:
            self._last_rest, self._pong = now, False
        if self._ping_sent is not None:
            if now - self._ping_sent >= self.limits.ping_timeout:
                self.fail(Violation(Code.NO_ERROR, "hbone_ping_timeouts", "peer did not answer PING", silent=True))
        elif now - self._last_rest >= self.limits.ping_after:
            self.probe(now)

    def probe(self, now: float) -> None:
        """Send a PING now unless one is under way; the keepalive's time limit counts for it."""
        if self._ping_sent is None and self.broken is None:
            self._ping_sent = now
            self.write(frames.frame(frames.PING, 0, 0, b"ambient\0"))

    def fail(self, violation: Violation) -> None:
        """End the connection for something the peer did: GOAWAY, then every stream hears of it."""
        if self.broken is None:
            self.broken = violation
            if not violation.silent:
                self.write(frames.goaway(self.last_peer_id, violation.code, violation.text))
            self._owner.on_violation(violation)
            self.lost()

    def lost(self, code: int = Code.CONNECT_ERROR) -> None:
        """The transport is gone: every stream hears of it (`on_reset` with `code`), nothing more is written."""
        streams, self.streams = self.streams, {}
        self.blocked.clear()
        if self.broken is None:
            self.broken = Violation(Code.NO_ERROR, "", "connection lost")
        for stream in streams.values():
            sink, stream.sink = stream.sink, None
            if sink is not None:
                sink.on_reset(code, untouched=False)

    def forget(self, stream: Stream) -> None:
        """The stream ended; release what it held."""
        self.streams.pop(stream.id, None)
        self.blocked.pop(stream.id, None)
        stream.sink = None
        stream.release()

    def give_back(self) -> None:
        """Reopen the connection's window unless too much lies unconsumed."""
        if self.unreturned >= self.limits.connection_window >> 2 and self.held < self.limits.max_held:
            self.write(frames.window_update(0, self.unreturned))
            self.receive_window += self.unreturned
            self.unreturned = 0

    # --- what the frame reader tells

    def count_control(self) -> None:
        """One more frame that costs us and gives nothing; too many in a second end the connection."""
        self._controls += 1
        if self._controls > self.limits.max_control_per_tick:
            raise Violation(Code.ENHANCE_YOUR_CALM, "hbone_control_flood", "too many control frames")

    def stream_for_data(self, stream_id: int) -> Stream | None:
        """The live stream that DATA is for; None for one that ended (the octets are discarded)."""
        stream = self.streams.get(stream_id)
        if stream is None:
            self._refuse_idle(stream_id, "DATA")
            return None
        if stream.remote_done:
            self.fail_stream(stream, Code.STREAM_CLOSED, "hbone_stream_closed")
            return None
        if self.client and not stream.answered:
            self.fail_stream(stream, Code.PROTOCOL_ERROR, "hbone_protocol_errors")
            return None
        return stream

    def _refuse_idle(self, stream_id: int, what: str) -> None:
        ours = bool(stream_id & 1) == self.client
        if not self.client and stream_id & 1 and self.going_away:
            # One that the peer opened before it read our last GOAWAY: ignored, and no fault of its.
            return
        last = self._next_id - 2 if ours else self.last_peer_id
        if not stream_id or stream_id > last:
            raise Violation(Code.PROTOCOL_ERROR, "hbone_stream_ids", f"{what} on idle stream {stream_id}")

    def fail_stream(self, stream: Stream, code: int, counter: str) -> None:
        """End one stream for something the peer did on it."""
        sink = stream.sink
        stream.reset(code)
        self._owner.on_violation(Violation(code, counter, f"stream {stream.id}"))
        if sink is not None:
            sink.on_reset(code, untouched=False)

    def remote_end(self, stream: Stream) -> None:
        """END_STREAM arrived."""
        if stream.remote_done or stream.id not in self.streams:
            return
        stream.remote_done = True
        sink = stream.sink
        if stream.local_done:
            self.forget(stream)
        if sink is not None:
            sink.on_end()

    def on_headers(self, stream_id: int, block: bytes, *, end: bool) -> None:
        fields = self._blocks.read(block)
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.client or not stream_id & 1 or stream_id <= self.last_peer_id:
                self._refuse_idle(stream_id, "HEADERS")
                self.count_control()
                return
            self._begin(stream_id, fields, end=end)
            return
        if stream.remote_done:
            self.fail_stream(stream, Code.STREAM_CLOSED, "hbone_stream_closed")
            return
        if not self.client or stream.answered:
            if end:
                self.remote_end(stream)
            else:
                self.fail_stream(stream, Code.PROTOCOL_ERROR, "hbone_protocol_errors")
            return
        try:
            answer = read_answer(fields)
        except Violation as violation:
            self.fail_stream(stream, violation.code, violation.counter)
            return
        if answer.status < 200:
            self.count_control()
            if end:
                self.fail_stream(stream, Code.PROTOCOL_ERROR, "hbone_protocol_errors")
            return
        stream.answered = True
        if stream.sink is not None:
            stream.sink.on_answer(answer)
        if end:
            self.remote_end(stream)

    def _begin(self, stream_id: int, fields: tuple[tuple[bytes, bytes], ...], *, end: bool) -> None:
        if self.going_away:
            return
        self.last_peer_id = stream_id
        if len(self.streams) >= self.limits.max_streams:
            self.write(frames.rst_stream(stream_id, Code.REFUSED_STREAM))
            self.add_reset_debt()
            return
        try:
            request = read_request(fields)
        except Violation as violation:
            self.write(frames.rst_stream(stream_id, violation.code))
            self._owner.on_violation(violation)
            self.add_reset_debt()
            return
        stream = Stream(self, stream_id, None)
        self.streams[stream_id] = stream
        sink = self._owner.on_request(stream, request)
        if stream_id in self.streams:
            stream.sink = sink
            if end:
                self.remote_end(stream)

    def add_reset_debt(self) -> None:
        """One more stream that cost us work and came to nothing."""
        self.reset_debt += 1
        if self.reset_debt > self.limits.max_reset_debt:
            raise Violation(Code.ENHANCE_YOUR_CALM, "hbone_rapid_reset", "too many streams reset before an answer")

    def on_rst_stream(self, stream_id: int, code: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self._refuse_idle(stream_id, "RST_STREAM")
            self.count_control()
            return
        sink, answered, used = stream.sink, stream.answered, stream.receive_window != self.limits.stream_window
        self.forget(stream)
        if sink is not None:
            sink.on_reset(code, untouched=self.client and code == Code.REFUSED_STREAM and not answered)
        if not self.client and not answered:
            self.add_reset_debt()
        elif not self.client and not used:
            # An answer may come so fast that a reset is never before it: opened for nothing all the same.
            self.count_control()

    def on_settings(self, flags: int, payload: memoryview) -> None:
        self.count_control()
        if flags & frames.ACK:
            if payload:
                raise Violation(Code.FRAME_SIZE_ERROR, "hbone_frame_size", "SETTINGS ACK with a payload")
            return
        settings.apply(self, payload)
        self.settled = True
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def on_ping(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK:
            if self._ping_sent is not None:
                self._ping_sent, self._pong = None, True
            return
        self.count_control()
        self.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def on_goaway(self, last: int, code: int) -> None:
        self.count_control()
        if self.client:
            self.going_away = True
            for stream in [stream for stream in self.streams.values() if stream.id > last]:
                sink = stream.sink
                self.forget(stream)
                if sink is not None:
                    sink.on_reset(code, untouched=True)
        self._owner.on_going_away()

    def on_window_update(self, stream_id: int, increment: int) -> None:
        if not stream_id:
            self.send_window += increment
            if not increment or self.send_window > frames.LARGEST_WINDOW:
                code = Code.FLOW_CONTROL_ERROR if increment else Code.PROTOCOL_ERROR
                raise Violation(code, "hbone_window_overflow", f"connection window update by {increment}")
            self.offer_room()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            self._refuse_idle(stream_id, "WINDOW_UPDATE")
            self.count_control()
            return
        stream.send_window += increment
        if not increment or stream.send_window > frames.LARGEST_WINDOW:
            code = Code.FLOW_CONTROL_ERROR if increment else Code.PROTOCOL_ERROR
            self.fail_stream(stream, code, "hbone_window_overflow")
        elif self.blocked:
            self.offer_room()

    def offer_room(self) -> None:
        """Tell the streams that wait for room that there is some."""
        for stream in list(self.blocked.values()):
            if self.send_window <= 0:
                return
            if stream.room() > 0 and self.blocked.pop(stream.id, None) is not None and stream.sink is not None:
                stream.sink.on_room()
