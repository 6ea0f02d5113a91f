"""The traffic metrics as text: five counters per label set, 27 labels each. Pure, and quick for thousands of sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ambient.model.traffic import FLAGS, TRAFFIC
from ztunnel.director.tally import Line
from ztunnel.ipc.messages import Exemplar

_COUNTERS: Final = (
    ("istio_tcp_connections_opened", "The total number of TCP connections opened."),
    ("istio_tcp_connections_closed", "The total number of TCP connections closed."),
    ("istio_tcp_connections_failed", "The total number of TCP connections that failed to establish a connection."),
    ("istio_tcp_received_bytes", "The size of total bytes received during request in case of a TCP connection."),
    ("istio_tcp_sent_bytes", "The size of total bytes sent during response in case of a TCP connection."),
)
_FAILED: Final = 2
_ALL: Final = "{" + ",".join(f'{name}="%s"' for name in TRAFFIC) + "}"
_EXEMPLAR_LIMIT: Final = 128
"""Characters of an exemplar's label names and values together (OpenMetrics 1.0, exemplars)."""


def traffic_text(lines: Mapping[tuple[str, ...], Line], *, exemplars: bool) -> str:
    """OpenMetrics text without an end mark. `exemplars`: the last failure of a set goes with its failure counter."""
    shown = [(_labels(labels), len(labels) > FLAGS and labels[FLAGS] != "-", line) for labels, line in lines.items()]
    parts: list[str] = []
    for index, (name, help_) in enumerate(_COUNTERS):
        parts.append(f"# HELP {name} {help_}\n# TYPE {name} counter\n")
        for labels, flagged, line in shown:
            amount = line.amounts[index]
            # Under a flag connections only close and fail, without one they never fail: as with Istio a counter
            # that cannot have counted is not there.
            if not amount and (flagged or index == _FAILED):
                continue
            told = _exemplar(line.exemplar) if exemplars and index == _FAILED and line.exemplar is not None else ""
            parts.append(f"{name}_total{labels} {amount}{told}\n")
    return "".join(parts)


def _labels(values: tuple[str, ...]) -> str:
    if len(values) == len(TRAFFIC) and not _special("".join(values)):
        return _ALL % values
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(TRAFFIC, values, strict=False)) + "}"


def _special(text: str) -> bool:
    return '"' in text or "\\" in text or "\n" in text


def _escaped(value: str) -> str:
    if _special(value):
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value


def _exemplar(exemplar: Exemplar) -> str:
    """The policy first, then trace and reason as far as they fit; what does not fit is left out whole, and what would
    have to be escaped (no name has such characters, and not every reader understands it here)."""
    room, kept = _EXEMPLAR_LIMIT, []
    for name, value in (("policy", exemplar.policy), ("trace_id", exemplar.trace_id), ("reason", exemplar.reason)):
        if value and len(name) + len(value) <= room and not _special(value):
            room -= len(name) + len(value)
            kept.append(f'{name}="{value}"')
    return f" # {{{','.join(kept)}}} 1 {exemplar.unix:.3f}"
