"""When talks end that have no end of their own (UDP, ICMP): those of two addresses and a port are told as closed, with
what they came to, after nothing of them was on a sheet for a while. That they began the kernel told. No I/O.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ambient.agent.naming import WorkloadAt, names_of, protocol_name
from ambient.datapath.tallies import Line
from ambient.flows.record import Event, Flow
from ambient.model.address import Endpoint, IpAddress

QUIET_S: Final = 30.0
MOST: Final = 4096
"""So many are watched at once, of one pod no more than are left for the others. Of more it is not told that they end;
that is counted, and the totals have them."""

_ALL: Final = "all of these two and this port"
_BEYOND: Final = "all that was beyond this pod's share"

_Key = tuple[IpAddress, IpAddress, int, int, bool]


@dataclass(slots=True)
class _Talk:
    since: float
    last: float
    bytes_sent: int = 0
    bytes_received: int = 0
    packets_sent: int = 0
    packets_received: int = 0


class Talks:
    """`clock` gives Unix seconds; `untold` are talks so far of which the end is not told."""

    def __init__(self, node: str, workload: WorkloadAt, clock: Callable[[], float], most: int = MOST) -> None:
        self._node = node
        self._workload = workload
        self._clock = clock
        self._most = most
        self._open: dict[_Key, _Talk] = {}
        self._held: Counter[IpAddress] = Counter()
        self.untold = 0

    def take(self, lines: Iterable[Line]) -> list[Flow]:
        """Take in one sheet; gives those that ended."""
        now = self._clock()
        for line in lines:
            if line.protocol != socket.IPPROTO_TCP:
                self._add(line, now)
        over = [key for key, talk in self._open.items() if now - talk.last >= QUIET_S]
        for key in over:
            self._held[_pod_of(key)] -= 1
        self._held += Counter()  # without those that have none
        return [self._closed(key, self._open.pop(key)) for key in over]

    def _add(self, line: Line, now: float) -> None:
        key = (line.source, line.destination, line.port, line.protocol, line.arriving)
        talk = self._open.get(key)
        if talk is None:
            pod = _pod_of(key)
            if len(self._open) + self._held[pod] >= self._most:
                self.untold += line.flows
                return
            self._held[pod] += 1
            talk = self._open[key] = _Talk(now, now)
        talk.last = now
        talk.bytes_sent += line.bytes_sent
        talk.bytes_received += line.bytes_received
        talk.packets_sent += line.packets_sent
        talk.packets_received += line.packets_received

    def _closed(self, key: _Key, talk: _Talk) -> Flow:
        source, destination, port, protocol, arriving = key
        return Flow(
            event=Event.CLOSED,
            time_unix=talk.last,
            node=self._node,
            direction="inbound" if arriving else "outbound",
            source=str(Endpoint(source, 0)),
            destination=str(Endpoint(destination, port)),
            **names_of(self._workload(source), self._workload(destination), arriving=arriving),
            detail=_BEYOND if source.is_unspecified or destination.is_unspecified else _ALL,
            bytes_sent=talk.bytes_sent,
            bytes_received=talk.bytes_received,
            packets_sent=talk.packets_sent,
            packets_received=talk.packets_received,
            duration_ms=int((talk.last - talk.since) * 1000),
            protocol=protocol_name(protocol),
        )


def _pod_of(key: _Key) -> IpAddress:
    source, destination, _, _, arriving = key
    return destination if arriving else source
