"""Octets in, frames out: cuts the byte stream into frames, checks their form and hands them to the connection.

DATA payload is passed on as it arrives, never collected; every other frame is collected whole (bounded by the frame
size that we advertise). Stops at the first violation by raising.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ztunnel.hbone import frames
from ztunnel.hbone.costs import REQUEST
from ztunnel.hbone.frames import Code
from ztunnel.hbone.limits import Violation

if TYPE_CHECKING:
    from ztunnel.hbone.connection import Connection
    from ztunnel.hbone.stream import Stream

_FIXED_SIZES = {frames.PRIORITY: 5, frames.RST_STREAM: 4, frames.PING: 8, frames.WINDOW_UPDATE: 4}
_ON_STREAM = frozenset({frames.HEADERS, frames.PRIORITY, frames.RST_STREAM, frames.CONTINUATION})
_ON_CONNECTION = frozenset({frames.SETTINGS, frames.PING, frames.GOAWAY})


_WORK = {frames.HEADERS: REQUEST, frames.CONTINUATION: REQUEST}

_SMALL: Final = 64
"""Octets of a DATA frame that is not worth a call of its own."""


class FrameReader:
    """Parsing state of one connection."""

    __slots__ = (
        "_block",
        "_block_end",
        "_block_parts",
        "_block_stream",
        "_connection",
        "_data_end",
        "_data_left",
        "_data_stream",
        "_greeted",
        "_preface",
        "_tail",
        "_tail_needs",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._preface = b"" if connection.client else frames.PREFACE
        self._greeted = False
        self._tail = bytearray()
        self._tail_needs = 0
        self._data_left = 0
        self._data_end = False
        self._data_stream: Stream | None = None
        self._block: bytearray | None = None
        self._block_stream = 0
        self._block_end = False
        self._block_parts = 0

    def receive(self, data: memoryview) -> None:
        """Process what arrived. Raises Violation for errors of the connection."""
        if self._preface:
            data = self._match_preface(data)
        if self._tail:
            self._tail += data
            if len(self._tail) < self._tail_needs:
                return
            data = memoryview(bytes(self._tail))
            self._tail.clear()
        at, size = 0, len(data)
        unpack = frames.HEADER.unpack_from
        budget = self._connection.work_at_once
        last = 0
        while at < size:
            if self._data_left:
                at = self._pass_data(data, at, size)
                continue
            if budget <= 0:
                self._keep(data[at:], 0)
                self._connection.unfinished = True
                return
            budget -= 1
            if size - at < 9:
                self._keep(data[at:], 9)
                return
            high, low, kind, flags, stream_id = unpack(data, at)
            length = high << 8 | low
            stream_id &= 0x7FFFFFFF
            if kind == frames.DATA and not flags & frames.PADDED and self._greeted and self._block is None:
                if stream_id == last and length <= _SMALL and not flags and size - at >= 9 + length:
                    run = self._run_of_data(data[at:], length, stream_id, budget + 1)
                    budget -= run - 1
                    at += run * (9 + length)
                    continue
                last = stream_id
                at += 9
                self._begin_data(stream_id, length, length, end=bool(flags & frames.END_STREAM))
                continue
            self._check(kind, flags, stream_id, length)
            if size - at < 9 + length:
                self._keep(data[at:], 9 + length)
                return
            budget -= _WORK.get(kind, 0)
            self._whole_frame(kind, flags, stream_id, data[at + 9 : at + 9 + length])
            if self._connection.broken is not None:
                return
            at += 9 + length

    def _keep(self, rest: memoryview, needs: int) -> None:
        self._tail += rest
        self._tail_needs = needs

    def _match_preface(self, data: memoryview) -> memoryview:
        part = bytes(data[: len(self._preface)])
        if not self._preface.startswith(part):
            raise Violation(Code.PROTOCOL_ERROR, "bad_preface", "not an HTTP/2 connection preface")
        self._preface = self._preface[len(part) :]
        return data[len(part) :]

    def _pass_data(self, data: memoryview, at: int, size: int) -> int:
        take = min(self._data_left, size - at)
        stream = self._data_stream
        if stream is not None and (sink := stream.sink) is not None:
            consumed = sink.on_data(data[at : at + take])
            if not stream.alive:
                pass  # it has no windows any more
            elif consumed:
                stream.give_back(take)
            else:
                stream.outstanding += take
                self._connection.held += take
        self._data_left -= take
        if not self._data_left and self._data_end:
            self._end_of_data()
        return at + take

    def _run_of_data(self, data: memoryview, length: int, stream_id: int, most: int) -> int:
        """`data` begins with a whole frame; those after it that have the same header are handed on with it, as each
        alone would be a call of the kernel and wake the application. Returns how many frames they were."""
        whole, header, run = 9 + length, bytes(data[:9]), 0
        parts = bytearray()
        while run < most and len(one := data[run * whole : run * whole + whole]) == whole and one[:9] == header:
            self._begin_data(stream_id, length, length, end=False)
            parts += one[9:]
            run += 1
        self._data_left = len(parts)
        if parts:
            self._pass_data(memoryview(parts), 0, len(parts))
        return run

    def _end_of_data(self) -> None:
        if self._data_stream is not None:
            self._connection.remote_end(self._data_stream)
        self._data_stream = None

    def _begin_data(self, stream_id: int, length: int, payload: int, *, end: bool) -> None:
        """`length` counts against the windows (with padding), `payload` octets of it will be passed on."""
        connection = self._connection
        if length > connection.limits.max_frame:
            raise Violation(Code.FRAME_SIZE_ERROR, "frame_size", f"DATA frame of {length} octets")
        connection.receive_window -= length
        connection.unreturned += length
        if connection.receive_window < 0:
            raise Violation(Code.FLOW_CONTROL_ERROR, "window_overflow", "connection window exceeded")
        if not payload and not end:
            # Also one that is all padding.
            connection.costs.control("empty_data_flood")
        stream = connection.stream_for_data(stream_id)
        if stream is not None:
            stream.receive_window -= length
            if stream.receive_window < 0:
                connection.fail_stream(stream, Code.FLOW_CONTROL_ERROR, "window_overflow")
                stream = None
            elif length > payload:
                stream.give_back(length - payload)
        self._data_stream, self._data_left, self._data_end = stream, payload, end
        if not payload and end:
            self._end_of_data()

    def _check(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        if length > self._connection.limits.max_frame:
            raise Violation(Code.FRAME_SIZE_ERROR, "frame_size", f"frame type {kind} of {length} octets")
        if not self._greeted and (kind != frames.SETTINGS or flags & frames.ACK):
            raise Violation(Code.PROTOCOL_ERROR, "bad_preface", "first frame is not SETTINGS")
        if self._block is not None and (kind != frames.CONTINUATION or stream_id != self._block_stream):
            raise Violation(Code.PROTOCOL_ERROR, "protocol_error", "header block interrupted")
        if self._block is None and kind == frames.CONTINUATION:
            raise Violation(Code.PROTOCOL_ERROR, "protocol_error", "CONTINUATION without HEADERS")
        if (kind in _ON_STREAM and not stream_id) or (kind in _ON_CONNECTION and stream_id):
            raise Violation(Code.PROTOCOL_ERROR, "protocol_error", f"frame type {kind} on stream {stream_id}")
        fixed = _FIXED_SIZES.get(kind)
        if fixed is not None and length != fixed:
            raise Violation(Code.FRAME_SIZE_ERROR, "frame_size", f"frame type {kind} of {length} octets")

    def _whole_frame(self, kind: int, flags: int, stream_id: int, payload: memoryview) -> None:
        connection = self._connection
        if kind == frames.WINDOW_UPDATE:
            connection.on_window_update(stream_id, frames.U32.unpack(payload)[0] & 0x7FFFFFFF)
        elif kind == frames.HEADERS:
            block = self._unpad(flags, payload)
            if flags & frames.WITH_PRIORITY:
                if len(block) < 5:
                    raise Violation(Code.FRAME_SIZE_ERROR, "frame_size", "HEADERS shorter than its priority")
                block = block[5:]
            self._headers(stream_id, flags, block)
        elif kind == frames.CONTINUATION:
            self._continuation(flags, payload)
        elif kind == frames.DATA:
            body = self._unpad(flags, payload)
            self._begin_data(stream_id, len(payload), len(body), end=bool(flags & frames.END_STREAM))
            if self._data_left:
                self._pass_data(body, 0, len(body))
        elif kind == frames.SETTINGS:
            connection.on_settings(flags, payload)
            self._greeted = True
        elif kind == frames.PING:
            connection.on_ping(flags, bytes(payload))
        elif kind == frames.RST_STREAM:
            connection.on_rst_stream(stream_id, frames.U32.unpack(payload)[0])
        elif kind == frames.GOAWAY:
            if len(payload) < 8:
                raise Violation(Code.FRAME_SIZE_ERROR, "frame_size", "GOAWAY shorter than 8 octets")
            last, code = frames.U32.unpack_from(payload, 0)[0], frames.U32.unpack_from(payload, 4)[0]
            connection.on_goaway(last & 0x7FFFFFFF, code)
        elif kind == frames.PUSH_PROMISE:
            raise Violation(Code.PROTOCOL_ERROR, "protocol_error", "PUSH_PROMISE")
        elif kind == frames.PRIORITY:
            connection.costs.control("priority_flood")
        else:
            connection.costs.control("unknown_frame_flood")

    def _unpad(self, flags: int, payload: memoryview) -> memoryview:
        if not flags & frames.PADDED:
            return payload
        if not payload or payload[0] >= len(payload):
            raise Violation(Code.PROTOCOL_ERROR, "protocol_error", "padding longer than its frame")
        return payload[1 : len(payload) - payload[0]]

    def _headers(self, stream_id: int, flags: int, block: memoryview) -> None:
        end = bool(flags & frames.END_STREAM)
        if len(block) > self._connection.limits.max_header_list:
            raise Violation(Code.ENHANCE_YOUR_CALM, "header_list_size", "header block too large")
        if flags & frames.END_HEADERS:
            self._connection.on_headers(stream_id, bytes(block), end=end)
            return
        self._block, self._block_stream, self._block_end, self._block_parts = bytearray(block), stream_id, end, 0

    def _continuation(self, flags: int, payload: memoryview) -> None:
        assert self._block is not None
        self._block += payload
        self._block_parts += 1
        limits = self._connection.limits
        if self._block_parts > limits.max_continuations or len(self._block) > limits.max_header_list:
            raise Violation(Code.ENHANCE_YOUR_CALM, "continuation_flood", "header block too large")
        if flags & frames.END_HEADERS:
            block, self._block = bytes(self._block), None
            self._connection.on_headers(self._block_stream, block, end=self._block_end)
