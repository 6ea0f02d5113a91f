"""A flow: one thing that happened to one connection, as ztunnel or the kernel reports it; and its JSON form.

Pure values. The JSON keys are the field names; unknown keys are ignored, so that an older reader understands a newer
ztunnel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from ambient.errors import InvalidInput


class Event(StrEnum):
    OPENED = "opened"
    CLOSED = "closed"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Times in seconds since the epoch, sizes in bytes; source and destination are "ip:port" as the client saw them.

    `sequence` is given by the store that holds it (0: not stored). `flags` are Istio's response flags ("-" = none).
    `traceparent` is the W3C trace context that went with its CONNECT. Of what the kernel tells besides: `protocol` ("":
    TCP), packets, `retransmits` (segments that the pod's end sent again) and `rtt_us` (smoothed; 0: not known).
    """

    event: Event
    time_unix: float
    node: str
    direction: str
    source: str
    destination: str
    source_pod: str = ""
    source_namespace: str = ""
    source_principal: str = ""
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
    sequence: int = 0
    traceparent: str = ""
    protocol: str = ""
    packets_sent: int = 0
    packets_received: int = 0
    retransmits: int = 0
    rtt_us: int = 0


_TYPES: Final[Mapping[str, type]] = MappingProxyType(
    {f.name: {"Event": str, "str": str, "int": int, "float": float}[str(f.type)] for f in fields(Flow)}
)
_REQUIRED: Final = ("event", "time_unix", "node", "direction", "source", "destination")


def to_json(flow: Flow) -> str:
    """One line of JSON without a newline; fields at their default are left out, except the required ones."""
    raw = {k: v for k, v in asdict(flow).items() if k in _REQUIRED or v not in ("", 0, "-", "unknown")}
    return json.dumps(raw, separators=(",", ":"))


def from_mapping(raw: Mapping[str, Any], where: str) -> Flow:
    """Read decoded JSON; raises InvalidInput naming the field."""
    values: dict[str, Any] = {}
    for name, kind in _TYPES.items():
        if name not in raw:
            if name in _REQUIRED:
                raise InvalidInput("not a flow record", where, f"{name} is missing")
            continue
        value = raw[name]
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InvalidInput("not a flow record", where, f"{name} is {value!r}, expected {kind.__name__}")
        values[name] = value
    try:
        values["event"] = Event(values["event"])
    except ValueError:
        raise InvalidInput("not a flow record", where, f"event {values['event']!r} is not known") from None
    return Flow(**values)


def from_json(line: str, where: str) -> Flow:
    """Read one line; raises InvalidInput."""
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise InvalidInput("not a flow record", where, str(error)) from None
    if not isinstance(raw, dict):
        raise InvalidInput("not a flow record", where, "expected a JSON object")
    return from_mapping(raw, where)
