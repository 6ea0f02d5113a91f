"""One line of what Envoy writes, read; and as it goes on into the access log. No I/O."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ambient.errors import InvalidInput

_UNDER_WAY: Final = frozenset({"TcpUpstreamConnected", "TcpPeriodic"})
_SIGNALS: Final = {401: "unauthenticated", 403: "denied", 429: "limited"}
_FAILED: Final = "failed"
_REDIRECTED: Final = "redirected"


class Line(msgspec.Struct, frozen=True, gc=False):
    """What is asked of a line. `ambient.waypoint.access` says what is in each."""

    log: str
    peer: str | None = None
    source: str | None = None
    service: str = ""
    namespace: str = ""
    destination: str | None = None
    upstream_peer: str | None = None
    status: int | None = None
    grpc_status: int | str | None = None
    content_type: str | None = None
    flags: str | None = None
    received: int = 0
    sent: int = 0
    wire_received: int = 0
    wire_sent: int = 0
    duration_ms: int | None = None
    kind: str | None = None
    connection: int = 0
    failure: Any = None
    least: str = ""


_DECODER: Final = msgspec.json.Decoder(Line)


def read(data: bytes) -> Line:
    """Raises InvalidInput for anything that is no line of ours."""
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("access log", data[:200].decode(errors="replace"), str(error)) from None


def logged(data: bytes, line: Line) -> bytes:
    """What of a line goes into the access log: b"" of a connection that goes on, and of what its owner
    wants to be told nothing of; a refusal or failure is marked
    with its `signal`."""
    if line.kind in _UNDER_WAY or (line.least and (line.status or 0) < int(line.least)):
        return b""
    told = signal(line)
    return data if not told else b'%s,"signal":"%s"}' % (data.rstrip()[:-1], told.encode())


def signal(line: Line) -> str:
    """What somebody who watches over security looks at: "" for what went well, `unauthenticated`, `denied`, `limited`
    and `redirected` by their status, `failed` for other answers and none, and for tunnels that could not be had."""
    if line.log == "tunnel":
        return _FAILED
    if line.status is None or 200 <= line.status < 300 or line.status == 101:
        return ""
    return _REDIRECTED if 300 <= line.status < 400 else _SIGNALS.get(line.status, _FAILED)
