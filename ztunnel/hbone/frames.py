"""HTTP/2 frames as bytes: numbers of RFC 9113 and the few builders a CONNECT tunnel needs. No state."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

HEADER: Final = struct.Struct(">HBBBI")
"""Frame header: length as 16 high bits and 8 low bits, type, flags, stream id (9 octets)."""
HEADER_SIZE: Final = 9
U32: Final = struct.Struct(">I")
SETTING: Final = struct.Struct(">HI")

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20

SETTING_TABLE_SIZE: Final = 1
SETTING_ENABLE_PUSH: Final = 2
SETTING_MAX_STREAMS: Final = 3
SETTING_INITIAL_WINDOW: Final = 4
SETTING_MAX_FRAME: Final = 5
SETTING_MAX_HEADER_LIST: Final = 6

DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME: Final = 16_384
LARGEST_FRAME: Final = (1 << 24) - 1
LARGEST_WINDOW: Final = (1 << 31) - 1
LARGEST_STREAM: Final = (1 << 31) - 1


class Code(IntEnum):
    """Error codes of RST_STREAM and GOAWAY (RFC 9113 section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


def code_name(code: int) -> str:
    """The name of an error code; unknown ones as "code 123"."""
    try:
        return Code(code).name
    except ValueError:
        return f"code {code}"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame with its header."""
    size = len(payload)
    return HEADER.pack(size >> 8, size & 255, kind, flags, stream) + payload


def settings(values: tuple[tuple[int, int], ...]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*value) for value in values))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame; `increment` 1..2^31-1."""
    return HEADER.pack(0, 4, WINDOW_UPDATE, 0, stream) + U32.pack(increment)


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return HEADER.pack(0, 4, RST_STREAM, 0, stream) + U32.pack(code)


def goaway(last_stream: int, code: int, text: str = "") -> bytes:
    """A GOAWAY frame; `text` is diagnostics for the peer's log."""
    return frame(GOAWAY, 0, 0, U32.pack(last_stream) + U32.pack(code) + text.encode("ascii", "replace")[:256])


def header_frames(stream: int, block: bytes, largest: int, *, end: bool = False) -> bytes:
    """A header block as HEADERS and, if it exceeds `largest` octets, CONTINUATION frames."""
    flags = END_STREAM if end else 0
    size = len(block)
    if size <= largest:
        return HEADER.pack(size >> 8, size & 255, HEADERS, flags | END_HEADERS, stream) + block
    parts = [block[at : at + largest] for at in range(0, size, largest)]
    out = [frame(HEADERS, flags, stream, parts[0])]
    out += [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
    out.append(frame(CONTINUATION, END_HEADERS, stream, parts[-1]))
    return b"".join(out)
