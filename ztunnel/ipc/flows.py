"""Flow records on their way from worker to director: one message carries many, packed, and they stay packed there
until somebody asks for them. There are up to four for every connection, so what each one costs counts: what connections
between the same two workloads have in common is written once per message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from ambient.errors import InvalidInput


class FlowRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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


class FlowEnds(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What records of the same two workloads have in common, as one of them tells it."""

    direction: str
    source_pod: str
    source_namespace: str
    source_principal: str
    destination_pod: str
    destination_namespace: str
    destination_principal: str
    service: str
    security: str


class FlowEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a record has of its own. `ends`: its place among those of the message."""

    ends: Annotated[int, msgspec.Meta(ge=0)]
    event: str
    time_unix: float
    source: str
    destination: str
    bytes_sent: int
    bytes_received: int
    duration_ms: int
    traceparent: str
    flags: str = "-"
    reason: str = ""
    policy: str = ""
    detail: str = ""


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    node: str
    ends: Sequence[FlowEnds]
    events: Sequence[FlowEvent]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Packed)
_OF_ENDS: Final = FlowEnds.__struct_fields__
_OF_EVENT: Final = FlowEvent.__struct_fields__[1:]


def pack(node: str, ends: Sequence[FlowEnds], events: Sequence[FlowEvent]) -> bytes:
    """Many records of a node as one value."""
    return _ENCODER.encode(_Packed(node, ends, events))


def unpack(packed: bytes) -> list[FlowRecord]:
    """The records again; raises InvalidInput for anything else."""
    try:
        whole = _DECODER.decode(packed)
        common = [{name: getattr(one, name) for name in _OF_ENDS} for one in whole.ends]
        return [
            FlowRecord(node=whole.node, **common[event.ends], **{name: getattr(event, name) for name in _OF_EVENT})
            for event in whole.events
        ]
    except (msgspec.DecodeError, ValueError, IndexError) as error:
        raise InvalidInput("unreadable flow records", "", str(error)) from None
