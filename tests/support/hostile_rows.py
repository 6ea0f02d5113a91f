"""Peers with a good certificate that break HTTP/2 or a limit: one rule each, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tests.support.hostile_peer import EMPTY_SETTINGS, HELLO, block, connect, data, headers, literal
from ztunnel.hbone import frames
from ztunnel.hbone.frames import Code, frame


@dataclass(frozen=True)
class Peer:
    """`says` after TLS, given the authority of `far`. What must come: GOAWAY with code and words, or RST_STREAM of
    stream 1 with a code; and the reason that counts it."""

    says: Callable[[bytes], bytes]
    code: Code
    words: str = ""
    reason: str = ""


def _after(*parts: bytes) -> Callable[[bytes], bytes]:
    """After a proper greeting."""
    return lambda _: HELLO + b"".join(parts)


def _open(*parts: bytes) -> Callable[[bytes], bytes]:
    """After a proper request on stream 1."""
    return lambda authority: HELLO + headers(1, connect(authority)) + b"".join(parts)


def _setting(name: int, value: int) -> bytes:
    return frames.settings(((name, value),))


def _all_malformed(_: bytes) -> bytes:
    return HELLO + b"".join(headers(n, block((b":path", b"/"))) for n in range(1, 2 * 260, 2))


_ERROR, _SIZE, _FLOW, _CALM = (
    *(Code.PROTOCOL_ERROR, Code.FRAME_SIZE_ERROR),
    *(Code.FLOW_CONTROL_ERROR, Code.ENHANCE_YOUR_CALM),
)
_BOMB = b"\x40\x01a\x7f\xbd\x1d" + b"x" * 3900 + b"\xbe" * 40
"""One large field put into the dynamic table, then forty times one octet that stands for it."""
_PREFACE, _PROTOCOL, _FRAME_SIZE = "bad_preface", "protocol_error", "frame_size"
_IDS, _WINDOW, _HPACK, _LIST = (
    *("stream_id", "window_overflow"),
    *("compression", "header_list_size"),
)

ENDED: Mapping[str, Peer] = MappingProxyType(
    {
        "speaks HTTP/1": Peer(lambda _: b"GET / HTTP/1.1\r\n\r\n" * 2, _ERROR, "not an HTTP/2 connection", _PREFACE),
        "does not greet with SETTINGS": Peer(
            lambda _: frames.PREFACE + frame(frames.PING, 0, 0, bytes(8)), _ERROR, "first frame is not", _PREFACE
        ),
        "sends DATA before SETTINGS": Peer(
            lambda _: frames.PREFACE + data(1, b"x"), _ERROR, "first frame is not SETTINGS", _PREFACE
        ),
        "acknowledges SETTINGS first": Peer(
            lambda _: frames.PREFACE + frame(frames.SETTINGS, frames.ACK, 0), _ERROR, "first frame is not", _PREFACE
        ),
        "sends SETTINGS of odd size": Peer(
            _after(frame(frames.SETTINGS, 0, 0, bytes(7))), _SIZE, "SETTINGS of odd size", _FRAME_SIZE
        ),
        "sends SETTINGS ACK with a payload": Peer(
            _after(frame(frames.SETTINGS, frames.ACK, 0, bytes(6))), _SIZE, "ACK with a payload", _FRAME_SIZE
        ),
        "sends SETTINGS on a stream": Peer(
            _open(frame(frames.SETTINGS, 0, 1)), _ERROR, "frame type 4 on stream 1", _PROTOCOL
        ),
        "wants tiny frames": Peer(
            _after(_setting(frames.SETTING_MAX_FRAME, 1)), _ERROR, "frame size out of range", "settings_value"
        ),
        "wants huge frames": Peer(
            _after(_setting(frames.SETTING_MAX_FRAME, 1 << 24)), _ERROR, "size out of range", "settings_value"
        ),
        "wants a window over 2^31": Peer(
            _after(_setting(frames.SETTING_INITIAL_WINDOW, 1 << 31)), _FLOW, "initial window", "settings_value"
        ),
        "wants push twice": Peer(
            _after(_setting(frames.SETTING_ENABLE_PUSH, 2)), _ERROR, "ENABLE_PUSH out of", "settings_value"
        ),
        "overflows a stream's window by SETTINGS": Peer(
            _open(frames.window_update(1, (1 << 31) - 65536), _setting(frames.SETTING_INITIAL_WINDOW, 70000)),
            *(_FLOW, "stream window too large", _WINDOW),
        ),
        "sends PING of seven octets": Peer(
            _after(frame(frames.PING, 0, 0, bytes(7))), _SIZE, "frame type 6 of 7 octets", _FRAME_SIZE
        ),
        "sends PING on a stream": Peer(
            _open(frame(frames.PING, 0, 1, bytes(8))), _ERROR, "frame type 6 on stream 1", _PROTOCOL
        ),
        "sends GOAWAY on a stream": Peer(
            _open(frame(frames.GOAWAY, 0, 1, bytes(8))), _ERROR, "frame type 7 on stream 1", _PROTOCOL
        ),
        "sends GOAWAY cut short": Peer(
            _after(frame(frames.GOAWAY, 0, 0, bytes(7))), _SIZE, "GOAWAY shorter than 8", _FRAME_SIZE
        ),
        "resets stream 0": Peer(_after(frames.rst_stream(0, 8)), _ERROR, "frame type 3 on stream 0", _PROTOCOL),
        "resets a stream that never was": Peer(
            _after(frames.rst_stream(7, 8)), _ERROR, "RST_STREAM on idle stream 7", _IDS
        ),
        "resets in three octets": Peer(
            _open(frame(frames.RST_STREAM, 0, 1, bytes(3))), _SIZE, "frame type 3 of 3 octets", _FRAME_SIZE
        ),
        "gives PRIORITY in four octets": Peer(
            _open(frame(frames.PRIORITY, 0, 1, bytes(4))), _SIZE, "frame type 2 of 4 octets", _FRAME_SIZE
        ),
        "opens the window in three octets": Peer(
            _after(frame(frames.WINDOW_UPDATE, 0, 0, bytes(3))), _SIZE, "frame type 8 of 3 octets", _FRAME_SIZE
        ),
        "opens the window by nothing": Peer(
            _after(frames.window_update(0, 0)), _ERROR, "connection window update by 0", _WINDOW
        ),
        "opens the window too far": Peer(
            _after(frames.window_update(0, (1 << 31) - 1)), _FLOW, "connection window update by 21474", _WINDOW
        ),
        "opens the window of a stream that never was": Peer(
            _after(frames.window_update(3, 1)), _ERROR, "WINDOW_UPDATE on idle stream 3", _IDS
        ),
        "sends DATA before HEADERS": Peer(_after(data(1, b"early")), _ERROR, "DATA on idle stream 1", _IDS),
        "sends DATA on stream 0": Peer(_after(data(0, b"x")), _ERROR, "DATA on idle stream 0", _IDS),
        "opens an even stream": Peer(
            lambda to: HELLO + headers(2, connect(to)), _ERROR, "HEADERS on idle stream 2", _IDS
        ),
        "opens stream 0": Peer(
            lambda to: HELLO + headers(0, connect(to)), _ERROR, "frame type 1 on stream 0", _PROTOCOL
        ),
        "pushes": Peer(_open(frame(frames.PUSH_PROMISE, 4, 1, bytes(5))), _ERROR, "PUSH_PROMISE", _PROTOCOL),
        "continues what never began": Peer(
            _after(frame(frames.CONTINUATION, 4, 1, b"")), _ERROR, "CONTINUATION without HEADERS", _PROTOCOL
        ),
        "interrupts its headers": Peer(
            _after(headers(1, b"", flags=0), frame(frames.PING, 0, 0, bytes(8))),
            *(_ERROR, "header block interrupted", _PROTOCOL),
        ),
        "interrupts its headers with DATA": Peer(
            _after(headers(1, b"", flags=0), data(1, b"x")), _ERROR, "header block interrupted", _PROTOCOL
        ),
        "continues on another stream": Peer(
            _after(headers(1, b"", flags=0), frame(frames.CONTINUATION, 4, 3, b"")),
            *(_ERROR, "header block interrupted", _PROTOCOL),
        ),
        "continues without end": Peer(
            _after(headers(1, b"", flags=0), frame(frames.CONTINUATION, 0, 1, b"") * 40),
            *(_CALM, "header block too large", "continuation_flood"),
        ),
        "continues for a megabyte": Peer(
            _after(headers(1, b"", flags=0), frame(frames.CONTINUATION, 0, 1, bytes(16384)) * 5),
            *(_CALM, "header block too large", "continuation_flood"),
        ),
        "sends headers of 100 KB": Peer(
            lambda to: HELLO + headers(1, connect(to, (b"x", bytes(100_000)))), _CALM, "header block too large", _LIST
        ),
        "sends a frame over 1 MB": Peer(
            lambda to: HELLO + headers(1, connect(to, (b"x", bytes(1 << 20)))),
            _SIZE,
            "frame type 1 of 10486",
            _FRAME_SIZE,
        ),
        "sends DATA over 1 MB": Peer(
            _open(frames.HEADER.pack(0x20_00, 0, frames.DATA, 0, 1)), _SIZE, "DATA frame of 2097152", _FRAME_SIZE
        ),
        "sends a bomb of headers": Peer(_after(headers(1, _BOMB)), _CALM, "header list too large", _LIST),
        "sends ten thousand small headers": Peer(
            _after(headers(1, literal(b"a", b"b") * 12_000)), _CALM, "header list too large", _LIST
        ),
        "names a header that is in no table": Peer(
            _after(headers(1, b"\xff\x80\x01")), Code.COMPRESSION_ERROR, "header block", _HPACK
        ),
        "names header 0": Peer(_after(headers(1, b"\x80")), Code.COMPRESSION_ERROR, "header block", _HPACK),
        "cuts its headers short": Peer(
            _after(headers(1, b"\x00\x05abc")), Code.COMPRESSION_ERROR, "header block", _HPACK
        ),
        "counts without end in its headers": Peer(
            _after(headers(1, b"\x7f" + b"\xff" * 200 + b"\x01")), Code.COMPRESSION_ERROR, "header block", _HPACK
        ),
        "wants a larger table than we gave": Peer(
            _after(headers(1, b"\x3f\xe1\xff\x03")), Code.COMPRESSION_ERROR, "header block", _HPACK
        ),
        "ends Huffman with EOS": Peer(
            _after(headers(1, b"\x00\x84\xff\xff\xff\xff\x01a")), Code.COMPRESSION_ERROR, "header block", _HPACK
        ),
        "pads beyond the frame": Peer(
            _open(frame(frames.DATA, frames.PADDED, 1, b"\x09abc")), _ERROR, "padding longer", _PROTOCOL
        ),
        "pads headers beyond the frame": Peer(
            _after(frame(frames.HEADERS, frames.PADDED | 4, 1, b"\x09abc")), _ERROR, "padding longer", _PROTOCOL
        ),
        "gives a priority cut short": Peer(
            _after(frame(frames.HEADERS, frames.WITH_PRIORITY | 4, 1, b"abc")),
            *(_SIZE, "HEADERS shorter than its priority", _FRAME_SIZE),
        ),
        "asks only what is malformed": Peer(_all_malformed, _CALM, "too many streams reset before", "rapid_reset"),
        "floods with PING": Peer(
            _after(frame(frames.PING, 0, 0, bytes(8)) * 3000), _CALM, "too many control", "ping_flood"
        ),
        "floods with SETTINGS": Peer(_after(EMPTY_SETTINGS * 3000), _CALM, "too many control frames", "settings_flood"),
        "floods with acknowledgements": Peer(
            _after(frame(frames.SETTINGS, frames.ACK, 0) * 3000), _CALM, "too many control", "settings_flood"
        ),
        "floods with empty DATA": Peer(_open(data(1, b"") * 3000), _CALM, "too many control", "empty_data_flood"),
        "floods with PRIORITY": Peer(
            _after(frame(frames.PRIORITY, 0, 1, bytes(5)) * 3000), _CALM, "too many control", "priority_flood"
        ),
        "floods with unknown frames": Peer(
            _after(frame(200, 0, 0, b"?") * 3000), _CALM, "too many control frames", "unknown_frame_flood"
        ),
        "floods with resets of a dead stream": Peer(
            _open(frames.rst_stream(1, 8) * 3000), _CALM, "too many control frames", "dead_stream_flood"
        ),
        "floods with GOAWAY": Peer(
            _after(frames.goaway(0, 0) * 3000), _CALM, "too many control frames", "goaway_flood"
        ),
        "floods a dead stream with headers": Peer(
            _open(frames.rst_stream(1, 8), headers(1, literal(b"a", b"b")) * 3000),
            *(_CALM, "too many control frames", "dead_stream_flood"),
        ),
        "floods a dead stream with windows": Peer(
            _open(frames.rst_stream(1, 8), frames.window_update(1, 1) * 3000),
            *(_CALM, "too many control frames", "dead_stream_flood"),
        ),
        "floods with windows of a stream": Peer(
            _open(frames.window_update(1, 1) * 3000), _CALM, "too many window updates", "window_update_flood"
        ),
        "floods with windows of the connection": Peer(
            _after(frames.window_update(0, 1) * 3000), _CALM, "too many window updates", "window_update_flood"
        ),
        "floods with answers to no PING": Peer(
            _after(frame(frames.PING, frames.ACK, 0, bytes(8)) * 3000), _CALM, "too many control", "ping_flood"
        ),
        "floods with empty padded DATA": Peer(
            _open(frame(frames.DATA, frames.PADDED, 1, b"\x00") * 3000), _CALM, "too many control", "empty_data_flood"
        ),
        "changes its window back and forth": Peer(
            _open(*(_setting(frames.SETTING_INITIAL_WINDOW, n % 2) for n in range(3000))),
            *(_CALM, "too many control frames", "settings_flood"),
        ),
        "sends SETTINGS of a thousand entries": Peer(
            _after(frames.settings(((0x0A0A, 1),) * 1_000) * 300), _CALM, "too many control", "settings_flood"
        ),
        "goes back in stream numbers": Peer(
            lambda to: HELLO + headers(5, connect(to)) + headers(3, connect(to)) * 3000,
            *(_CALM, "too many control frames", "dead_stream_flood"),
        ),
    }
)

RESET: Mapping[str, Peer] = MappingProxyType(
    {
        "opens a stream's window by nothing": Peer(_open(frames.window_update(1, 0)), _ERROR, reason="window_overflow"),
        "opens a stream's window too far": Peer(
            _open(frames.window_update(1, (1 << 31) - 1)), _FLOW, reason="window_overflow"
        ),
        "sends DATA after its end": Peer(
            _open(data(1, b"x", end=True), data(1, b"more")), Code.STREAM_CLOSED, reason="stream_closed"
        ),
        "sends headers after its end": Peer(
            _open(data(1, b"x", end=True), headers(1, literal(b"a", b"b"))),
            *(Code.STREAM_CLOSED, "", "stream_closed"),
        ),
        "sends a second request on a stream": Peer(
            lambda to: HELLO + headers(1, connect(to)) * 2, _ERROR, reason="protocol_error"
        ),
        "sends trailers with a pseudo field": Peer(
            _open(headers(1, block((b":path", b"/")), end=True)), _ERROR, reason="protocol_error"
        ),
        "sends trailers without the end": Peer(_open(headers(1, literal(b"a", b"b"))), _ERROR, reason="protocol_error"),
        "puts a blank into a name": Peer(
            lambda to: HELLO + headers(1, connect(to, (b"a b", b"x"))), _ERROR, reason="malformed_headers"
        ),
        "puts a colon into a name": Peer(
            lambda to: HELLO + headers(1, connect(to, (b"a:b", b"x"))), _ERROR, reason="malformed_headers"
        ),
        "puts DEL into a name": Peer(
            lambda to: HELLO + headers(1, connect(to, (b"a\x7f", b"x"))), _ERROR, reason="malformed_headers"
        ),
        "sends :method twice": Peer(
            lambda to: HELLO + headers(1, block((b":method", b"CONNECT")) + connect(to)),
            *(_ERROR, "", "malformed_headers"),
        ),
        "sends :authority twice": Peer(
            lambda to: HELLO + headers(1, connect(to) + block((b":authority", b"127.0.0.1:8080"))),
            *(_ERROR, "", "malformed_headers"),
        ),
        "sends no :method": Peer(
            lambda to: HELLO + headers(1, block((b":authority", to))), _ERROR, reason="malformed_headers"
        ),
        "invents a pseudo field": Peer(
            lambda to: HELLO + headers(1, connect(to, (b":user", b"root"))), _ERROR, reason="malformed_headers"
        ),
        "sends a response as its request": Peer(_after(headers(1, b"\x88")), _ERROR, reason="malformed_headers"),
        "puts a pseudo field last": Peer(
            lambda to: HELLO + headers(1, block((b"a", b"b")) + connect(to)), _ERROR, reason="malformed_headers"
        ),
        "writes a field in capitals": Peer(
            lambda to: HELLO + headers(1, connect(to, (b"Forwarded", b"x"))), _ERROR, reason="malformed_headers"
        ),
        "sends a field without a name": Peer(
            lambda to: HELLO + headers(1, connect(to, (b"", b"x"))), _ERROR, reason="malformed_headers"
        ),
        "sends a connection field": Peer(
            lambda to: HELLO + headers(1, connect(to, (b"connection", b"close"))),
            *(_ERROR, "", "malformed_headers"),
        ),
        "sends transfer-encoding": Peer(
            lambda to: HELLO + headers(1, connect(to, (b"transfer-encoding", b"chunked"))),
            *(_ERROR, "", "malformed_headers"),
        ),
        "puts NUL into a field": Peer(
            lambda to: HELLO + headers(1, connect(to, (b"baggage", b"a\0b"))), _ERROR, reason="malformed_headers"
        ),
        "puts a line break into a field": Peer(
            lambda to: HELLO + headers(1, connect(to, (b"forwarded", b"a\r\nx: y"))),
            *(_ERROR, "", "malformed_headers"),
        ),
    }
)
