"""Flows as lines for people. Pure; JSON lines are `ambient.flows.record.to_json`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from ambient.flows.record import Event, Flow

HEADER: Final = ("TIME", "EVENT", "DIR", "FROM", "TO", "SECURITY", "SENT", "RECEIVED", "MS", "WHY")
_WIDTHS: Final = (12, 7, 8, 34, 44, 10, 8, 8, 7, 0)
_UNITS: Final = "BKMGT"


def header() -> str:
    return _line(HEADER)


def row(flow: Flow) -> str:
    """One line under `header()`; control characters of what peers sent never reach the terminal."""
    return _line(
        (
            datetime.fromtimestamp(flow.time_unix, UTC).strftime("%H:%M:%S.%f")[:12],
            flow.event.value,
            flow.direction,
            _name(flow.source_namespace, flow.source_pod, flow.source),
            _name(flow.destination_namespace, flow.destination_pod, flow.destination),
            flow.security,
            size(flow.bytes_sent) if flow.event is not Event.OPENED else "",
            size(flow.bytes_received) if flow.event is not Event.OPENED else "",
            str(flow.duration_ms) if flow.event is not Event.OPENED else "",
            _why(flow),
        )
    )


def size(count: int) -> str:
    """Bytes with a binary unit, at most four digits: "999B", "1.0K", "12M"."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    digits = 1 if unit and value < 10 else 0
    return f"{value:.{digits}f}{_UNITS[unit]}"


def _name(namespace: str, pod: str, endpoint: str) -> str:
    return f"{namespace}/{pod}:{endpoint.rpartition(':')[2]}" if pod else endpoint


def _why(flow: Flow) -> str:
    words = [flow.flags] if flow.flags not in ("", "-") else []
    words += [word for word in (flow.protocol, flow.reason, flow.policy, flow.detail) if word]
    words += [f"rtt={flow.rtt_us / 1000:.3g}ms"] if flow.rtt_us else []
    words += [f"retransmits={flow.retransmits}"] if flow.retransmits else []
    return " ".join(words)


def _line(cells: tuple[str, ...]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
    return "".join(c if c.isprintable() else "?" for c in " ".join(padded)).rstrip()
