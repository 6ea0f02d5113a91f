"""Flow records on their way from worker to director: one message carries many, packed, and they stay packed there
until somebody asks for them. There are up to four for every connection, so what each one costs counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ambient.errors import InvalidInput


class FlowRecord(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A connection that opened, closed, was denied or failed; for `ambient flows`."""

    event: str
    time_unix: float
    node: str
    direction: str
    source: str
    source_pod: str = ""
    source_namespace: str = ""
    source_principal: str = ""
    destination: str
    destination_pod: str = ""
    destination_namespace: str = ""
    destination_principal: str = ""
    service: str = ""
    security: str = "unknown"
    flags: str = "-"
    reason: str = ""
    policy: str = ""
    detail: str = ""
    bytes_sent: int = 0
    bytes_received: int = 0
    duration_ms: int = 0
    traceparent: str = ""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(list[FlowRecord])


def pack(records: Sequence[FlowRecord]) -> bytes:
    """Many records as one value."""
    return _ENCODER.encode(records)


def unpack(packed: bytes) -> list[FlowRecord]:
    """The records again; raises InvalidInput for anything else."""
    try:
        return _DECODER.decode(packed)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidInput("unreadable flow records", "", str(error)) from None
