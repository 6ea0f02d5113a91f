"""One span per connection, in OTLP's JSON form, from the flow records that workers send anyway. Pure.

The side that opened the tunnel owns the span whose id went out in `traceparent`; the side that took it has a child of
it. Connections without a tunnel begin a trace of their own. (OTLP 1.x, JSON mapping: ids in hex, 64-bit numbers as
text, enums as numbers.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ambient.errors import InvalidInput
from ambient.model.address import parse_endpoint
from ztunnel import VERSION
from ztunnel.ipc.flows import FlowRecord

_HEX: Final = frozenset("0123456789abcdef")
_SERVER, _CLIENT = 2, 3
_ERROR: Final = 2
_TRACE_BITS, _SPAN_BITS = 128, 64
_TEXTS: Final = (
    ("source.workload.pod", "source_pod"),
    ("source.workload.namespace", "source_namespace"),
    ("source.principal", "source_principal"),
    ("destination.workload.pod", "destination_pod"),
    ("destination.workload.namespace", "destination_namespace"),
    ("destination.principal", "destination_principal"),
    ("destination.service", "service"),
    ("connection.security_policy", "security"),
    ("response_flags", "flags"),
    ("reason", "reason"),
    ("policy", "policy"),
)


def parse_traceparent(text: str) -> tuple[str, str] | None:
    """Trace id and parent id of a W3C trace context, None when it is none (Trace Context level 1, section 3.2)."""
    version, _, rest = text.partition("-")
    parts = rest.split("-")
    if len(version) != 2 or version == "ff" or len(parts) != 3 or [len(part) for part in parts] != [32, 16, 2]:
        return None
    if not set(version + "".join(parts)) <= _HEX or not int(parts[0], 16) or not int(parts[1], 16):
        return None
    return parts[0], parts[1]


def span_of(record: FlowRecord, random_bits: Callable[[int], int]) -> dict[str, Any]:
    """The span of a connection that has ended. `random_bits(n)`: ids for what has none."""
    outbound = record.direction == "outbound"
    context = parse_traceparent(record.traceparent)
    fresh = f"{random_bits(_SPAN_BITS) or 1:016x}"
    end = int(record.time_unix * 1e9)
    span: dict[str, Any] = {
        "traceId": context[0] if context else f"{random_bits(_TRACE_BITS) or 1:032x}",
        "spanId": context[1] if context and outbound else fresh,
        "name": f"ztunnel {record.direction}",
        "kind": _CLIENT if outbound else _SERVER,
        "startTimeUnixNano": str(end - record.duration_ms * 1_000_000),
        "endTimeUnixNano": str(end),
        "attributes": _attributes(record),
    }
    if context and not outbound:
        span["parentSpanId"] = context[1]
    if record.event != "closed":
        span["status"] = {"code": _ERROR, "message": record.detail or record.reason}
    return span


def sampled(span: Mapping[str, Any], ratio: float) -> bool:
    """Whether a trace is among the `ratio` that is exported: both ends come to the same answer by its id alone."""
    return int(span["traceId"][-14:], 16) < ratio * (1 << 56)


def export_request(spans: Iterable[Mapping[str, Any]], resource: Mapping[str, str]) -> dict[str, Any]:
    """The body of a request to /v1/traces."""
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": [_text(key, value) for key, value in resource.items()]},
                "scopeSpans": [{"scope": {"name": "ambient.ztunnel", "version": VERSION}, "spans": list(spans)}],
            }
        ]
    }


def _attributes(record: FlowRecord) -> list[dict[str, Any]]:
    found = [_text("network.transport", "tcp")]
    for key, address in (("client", record.source), ("server", record.destination)):
        try:
            endpoint = parse_endpoint(address)
        except InvalidInput:
            # A tunnel to a host name.
            found.append(_text(f"{key}.address", address))
            continue
        found += [_text(f"{key}.address", str(endpoint.ip)), _number(f"{key}.port", endpoint.port)]
    found += [_text(key, value) for key, name in _TEXTS if (value := getattr(record, name))]
    return [*found, _number("bytes_sent", record.bytes_sent), _number("bytes_received", record.bytes_received)]


def _text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def _number(key: str, value: int) -> dict[str, Any]:
    return {"key": key, "value": {"intValue": str(value)}}
