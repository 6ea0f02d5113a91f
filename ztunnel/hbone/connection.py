"""One HTTP/2 connection that carries CONNECT streams, either role: octets in, octets and events out.

No I/O and no clock: octets to send go to `Owner.write`, which must take them before it returns (buffers are reused);
time comes in with `tick`. After a violation GOAWAY is written, every stream is told, and the owner closes.
"""

from __future__ import annotations

from typing import Final

from ztunnel.hbone import frames, opening, settings
from ztunnel.hbone.costs import Costs
from ztunnel.hbone.frames import Code
from ztunnel.hbone.headers import BlockReader
from ztunnel.hbone.keepalive import KeepAlive
from ztunnel.hbone.limits import CLIENT, SERVER, Limits, Violation
from ztunnel.hbone.owner import Owner
from ztunnel.hbone.reader import FrameReader
from ztunnel.hbone.stream import Sink, Stream

_DRAIN_PING: Final = b"drained?"


_SETTINGS_OF_ONE: Final = 9 * frames.SETTING.size


class Connection:
    """State of one connection; `limits` defaults to what we advertise in that role."""

    __slots__ = (
        "_blocks",
        "_keepalive",
        "_next_id",
        "_paid_for",
        "_reader",
        "blocked",
        "broken",
        "client",
        "costs",
        "draining",
        "given",
        "going_away",
        "growth",
        "held",
        "last_peer_id",
        "limits",
        "owner",
        "peer_initial_window",
        "peer_max_frame",
        "peer_max_streams",
        "receive_window",
        "send_window",
        "settled",
        "shrink_table",
        "streams",
        "unfinished",
        "unreturned",
        "work_at_once",
        "write",
    )

    def __init__(self, owner: Owner, *, client: bool, limits: Limits | None = None) -> None:
        self.owner = owner
        self.write = owner.write
        self.client = client
        self.limits = limits or (CLIENT if client else SERVER)
        self.streams: dict[int, Stream] = {}
        self.blocked: dict[int, Stream] = {}
        self.send_window = frames.DEFAULT_WINDOW
        self.given = frames.DEFAULT_WINDOW
        """All that the peer ever gave us to send on the connection; less `send_window` it is what we sent."""
        self.receive_window = self.limits.connection_window
        self.held = 0
        self.growth = self.limits.growth
        """How much larger the streams' windows may still become."""
        self.unreturned = 0
        self.peer_initial_window = frames.DEFAULT_WINDOW
        self.peer_max_frame = frames.DEFAULT_FRAME
        self.peer_max_streams = frames.LARGEST_STREAM
        self.last_peer_id = 0
        self.settled = False
        self.going_away = False
        self.draining = False
        self.broken: Violation | None = None
        self._next_id = 1
        self.shrink_table = False
        self.work_at_once = 1 << 30
        """About how many frames `receive` goes through before it leaves the rest for the next call."""
        self.unfinished = False
        """There is such a rest: call `receive` again, with more or with nothing, when others had their turn."""
        self.costs = Costs(self.limits)
        self._paid_for = 0
        self._keepalive = KeepAlive(self.limits)
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
        self.unfinished = False
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
        """Ask the peer to open no more streams; the open ones go on. Streams that are on their way meanwhile are
        taken: the final GOAWAY waits for the answer to a PING (RFC 9113 section 6.8), or for the next tick."""
        if self.broken is None and not self.draining:
            self.draining = True
            last = frames.LARGEST_STREAM if not self.client else 0
            self.write(frames.goaway(last, Code.NO_ERROR) + frames.frame(frames.PING, 0, 0, _DRAIN_PING))

    def _last_word(self) -> None:
        if self.draining and not self.client and not self.going_away:
            self.going_away = True
            self.write(frames.goaway(self.last_peer_id, Code.NO_ERROR))

    def tick(self, now: float) -> None:
        """Once a second, with a monotonic clock: keepalive and the limits that are per second."""
        self.costs.tick()
        if self.broken is not None:
            return
        self._last_word()
        try:
            if self._keepalive.due(now):
                self._ping()
        except Violation as violation:
            self.fail(violation)

    def probe(self, now: float) -> None:
        """Send a PING now unless one is under way; the keepalive's time limit counts for it."""
        if self.broken is None and self._keepalive.ask(now):
            self._ping()

    def _ping(self) -> None:
        self.write(frames.frame(frames.PING, 0, 0, b"ambient\0"))

    def fail(self, violation: Violation) -> None:
        """End the connection for something the peer did: GOAWAY, then every stream hears of it."""
        if self.broken is None:
            self.broken = violation
            if not violation.silent:
                self.write(frames.goaway(self.last_peer_id, violation.code, violation.text))
            self.owner.on_violation(violation)
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
        # What it held may have been what kept the connection shut for the others.
        self.give_back()

    def give_back(self) -> None:
        """Reopen the connection's window unless too much lies unconsumed."""
        if self.unreturned >= self.limits.connection_window >> 2 and self.held < self.limits.max_held:
            self.write(frames.window_update(0, self.unreturned))
            self.receive_window += self.unreturned
            self.unreturned = 0

    # --- what the frame reader tells

    def stream_for_data(self, stream_id: int) -> Stream | None:
        """The live stream that DATA is for; None for one that ended (the octets are discarded)."""
        stream = self.streams.get(stream_id)
        if stream is None:
            self.refuse_idle(stream_id, "DATA")
            return None
        if stream.remote_done:
            self.fail_stream(stream, Code.STREAM_CLOSED, "stream_closed")
            return None
        if self.client and not stream.answered:
            self.fail_stream(stream, Code.PROTOCOL_ERROR, "protocol_error")
            return None
        return stream

    def refuse_idle(self, stream_id: int, what: str) -> None:
        """Raise Violation for a stream that was never opened; return for one that ended, or is late."""
        ours = bool(stream_id & 1) == self.client
        if not self.client and stream_id & 1 and self.going_away and stream_id > self.last_peer_id:
            # One that the peer opened before it read our last GOAWAY: ignored, and no fault of its.
            self.costs.control("dead_stream_flood")
            return
        last = self._next_id - 2 if ours else self.last_peer_id
        if not stream_id or stream_id > last:
            raise Violation(Code.PROTOCOL_ERROR, "stream_id", f"{what} on idle stream {stream_id}")

    def fail_stream(self, stream: Stream, code: int, reason: str) -> None:
        """End one stream for something the peer did on it."""
        sink = stream.sink
        stream.reset(code)
        self.owner.on_violation(Violation(code, reason, f"stream {stream.id}"))
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
        opening.on_headers(self, stream_id, self._blocks.read(block), end=end)

    def on_rst_stream(self, stream_id: int, code: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            self.refuse_idle(stream_id, "RST_STREAM")
            self.costs.dead()
            return
        sink, answered, used = stream.sink, stream.answered, stream.receive_window != self.limits.stream_window
        self.forget(stream)
        if sink is not None:
            sink.on_reset(code, untouched=self.client and code == Code.REFUSED_STREAM and not answered)
        if not self.client and not answered:
            self.costs.wasted()
        elif not self.client and not used:
            # An answer may come so fast that a reset is never before it: opened for nothing all the same.
            self.costs.control("unused_stream_flood")

    def on_settings(self, flags: int, payload: memoryview) -> None:
        for _ in range(1 + len(payload) // _SETTINGS_OF_ONE):
            # Each value may touch every stream, so a large frame is as many.
            self.costs.control("settings_flood")
        if flags & frames.ACK:
            if payload:
                raise Violation(Code.FRAME_SIZE_ERROR, "frame_size", "SETTINGS ACK with a payload")
            return
        settings.apply(self, payload)
        self.settled = True
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def on_ping(self, flags: int, payload: bytes) -> None:
        if flags & frames.ACK and payload == _DRAIN_PING:
            self._last_word()
        elif flags & frames.ACK:
            self._keepalive.answered()
        self.costs.control("ping_flood")
        if flags & frames.ACK:
            return
        self.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def on_goaway(self, last: int, code: int) -> None:
        self.costs.control("goaway_flood")
        if self.client:
            self.going_away = True
            for stream in [stream for stream in self.streams.values() if stream.id > last]:
                sink = stream.sink
                self.forget(stream)
                if sink is not None:
                    sink.on_reset(code, untouched=True)
        self.owner.on_going_away()

    def on_window_update(self, stream_id: int, increment: int) -> None:
        if not self.costs.update():
            sent = self.given - self.send_window
            paid, self._paid_for = self._paid_for, sent
            self.costs.pay(sent - paid)
        if not stream_id:
            self.send_window += increment
            self.given += increment
            if not increment or self.send_window > frames.LARGEST_WINDOW:
                code = Code.FLOW_CONTROL_ERROR if increment else Code.PROTOCOL_ERROR
                raise Violation(code, "window_overflow", f"connection window update by {increment}")
            self.offer_room()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            self.refuse_idle(stream_id, "WINDOW_UPDATE")
            self.costs.dead()
            return
        stream.send_window += increment
        if not increment or stream.send_window > frames.LARGEST_WINDOW:
            code = Code.FLOW_CONTROL_ERROR if increment else Code.PROTOCOL_ERROR
            self.fail_stream(stream, code, "window_overflow")
        elif self.blocked:
            self.offer_room()

    def offer_room(self) -> None:
        """Tell the streams that wait for room that there is some."""
        for stream in list(self.blocked.values()):
            if self.send_window <= 0:
                return
            if stream.room() > 0 and self.blocked.pop(stream.id, None) is not None and stream.sink is not None:
                stream.sink.on_room()
