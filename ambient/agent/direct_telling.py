"""What is told of connections on the kernel path: Istio's traffic metrics, a line of the access log, flow records.

Both sides are told, as the ztunnels of both pods would: `reporter` and direction. `connection_security_policy` is
"kernel": both identities are certain, nothing is encrypted. No I/O but the log.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ambient.agent.same_node import Judged
from ambient.datapath.direct import Tuple
from ambient.flows.record import Event, Flow
from ambient.model.outcome import PeerLabels, ServiceLabels
from ambient.model.traffic import KERNEL, TRAFFIC, overflow, traffic_labels, with_flags

MOST_SERIES: Final = 2_000
_FAMILIES: Final = (
    ("connections_opened", "The total number of TCP connections opened."),
    ("connections_closed", "The total number of TCP connections closed."),
    ("connections_failed", "The total number of TCP connections that failed to establish a connection."),
    ("received_bytes", "The size of total bytes received during request in case of a TCP connection."),
    ("sent_bytes", "The size of total bytes sent during response in case of a TCP connection."),
)
_SIDES: Final = (("source", "outbound"), ("destination", "inbound"))

log = logging.getLogger("access")

Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended: `kind` is "" (closed), "reset", "refused", "timeout" or "denied"."""

    kind: str = ""
    detail: str = ""
    policy: str = ""


class Telling:
    """`keep` takes flow records; `wall` gives seconds since 1970."""

    def __init__(self, node: str, keep: Callable[[list[Flow]], None], wall: Callable[[], float] = time.time) -> None:
        self._node = node
        self._keep = keep
        self._wall = wall
        self._series: dict[str, Counter[Labels]] = {family: Counter() for family, _ in _FAMILIES}
        self._known: set[Labels] = set()

    def opened(self, judged: Judged) -> None:
        self._count("connections_opened", judged)

    def carried(self, judged: Judged, sent: int, received: int) -> None:
        """So many more bytes from the client and to it."""
        if sent > 0:
            self._count("received_bytes", judged, by=sent)
        if received > 0:
            self._count("sent_bytes", judged, by=received)

    def closed(
        self, one: Tuple, judged: Judged, sent: int, received: int, lasted_s: float, end: End, *, opened: bool
    ) -> None:
        """`sent` and `received` are the client's."""
        if opened:
            self._count("connections_closed", judged, "DENY" if end.kind == "denied" else "-")
        else:
            self._count("connections_failed", judged, "CONNECT")
        event = Event.DENIED if end.kind == "denied" else Event.CLOSED if opened else Event.FAILED
        records = []
        for _, direction in _SIDES:
            mine, theirs = (sent, received) if direction == "outbound" else (received, sent)
            _log(one, judged, direction, mine, theirs, lasted_s, end)
            records.append(
                Flow(
                    event=event,
                    time_unix=self._wall(),
                    node=self._node,
                    direction=direction,
                    source=str(one.source),
                    source_pod=judged.source.pod,
                    source_namespace=judged.source.namespace,
                    source_principal=judged.source.principal,
                    destination=str(one.destination),
                    destination_pod=judged.destination.pod,
                    destination_namespace=judged.destination.namespace,
                    destination_principal=judged.destination.principal,
                    service=judged.service.hostname,
                    security=KERNEL,
                    flags="DENY" if end.kind == "denied" else "-" if opened else "CONNECT",
                    reason=end.detail if end.kind == "denied" else end.kind,
                    policy=end.policy,
                    detail=end.detail if end.kind else "",
                    bytes_sent=sent,
                    bytes_received=received,
                    duration_ms=int(lasted_s * 1000),
                )
            )
        self._keep(records)

    def render(self) -> str:
        """As Prometheus text."""
        lines = []
        for family, text in _FAMILIES:
            name = f"istio_tcp_{family}_total"
            lines += [f"# HELP {name} {text}", f"# TYPE {name} counter"]
            lines += [f"{name}{{{_shown(labels)}}} {value}" for labels, value in sorted(self._series[family].items())]
        return "\n".join(lines) + "\n"

    def _count(self, family: str, judged: Judged, flags: str = "-", by: int = 1) -> None:
        for reporter, _ in _SIDES:
            labels = with_flags(_labels(reporter, judged.source, judged.destination, judged.service), flags)
            if labels not in self._known and len(self._known) >= MOST_SERIES:
                labels = overflow(labels)
            self._known.add(labels)
            self._series[family][labels] += by


@lru_cache(MOST_SERIES)
def _labels(reporter: str, source: PeerLabels, destination: PeerLabels, service: ServiceLabels) -> Labels:
    return traffic_labels(
        reporter, source, source.principal, destination, destination.principal, service, security=KERNEL
    )


def _shown(labels: Labels) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

    return ",".join(f'{name}="{escaped(value)}"' for name, value in zip(TRAFFIC, labels, strict=True))


def _log(one: Tuple, judged: Judged, direction: str, mine: int, theirs: int, lasted_s: float, end: End) -> None:
    level = logging.ERROR if end.kind == "denied" else logging.INFO
    if log.isEnabledFor(level):
        log.log(
            level, "connection complete\t%s", " ".join(_fields(one, judged, direction, mine, theirs, lasted_s, end))
        )


def _fields(
    one: Tuple, judged: Judged, direction: str, mine: int, theirs: int, lasted_s: float, end: End
) -> Iterator[str]:
    """The names are those of ztunnel's access log."""
    source, destination = judged.source, judged.destination
    yield f"src.addr={one.source}"
    for key, value in (
        ("src.workload", source.pod),
        ("src.namespace", source.namespace),
        ("src.identity", source.principal),
    ):
        if value:
            yield f'{key}="{value}"'
    yield f"dst.addr={one.destination}"
    for key, value in (
        ("dst.service", judged.service.hostname),
        ("dst.workload", destination.pod),
        ("dst.namespace", destination.namespace),
        ("dst.identity", destination.principal),
        ("direction", direction),
        ("path", KERNEL),
    ):
        if value:
            yield f'{key}="{value}"'
    yield f'bytes_sent={mine} bytes_recv={theirs} duration="{int(lasted_s * 1000)}ms"'
    if end.kind:
        yield f'error="{end.detail}" reason="{end.kind}"'
    if end.policy:
        yield f'policy="{end.policy}"'
