"""Turns what the programs tell of single packets and flows into flow records: who was refused in the kernel, by which
policy, who sent data in the clear, and connections that ztunnel does not tell of.

The ring is emptied once a second: events are thinned where they are made, so that no flood costs more than that. What
was not told is a gap in the numbers of the records. May not count: totals are the kernel's own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from ambient.agent.naming import WorkloadAt, names_of, record_of
from ambient.datapath.events import Heard, Told
from ambient.datapath.layout import Counter
from ambient.flows.record import Event, Flow, to_json
from ambient.flows.store import FlowStore
from ambient.model.outcome import Denied

INTERVAL_S: Final = 1.0
CAPACITY: Final = 8192
"""So many records are kept."""
_UNTOLD: Final = (
    Counter.EVENT_LOST,
    Counter.EVENT_THINNED,
    Counter.EVENT_FLOW_LOST,
    Counter.EVENT_FLOW_THINNED,
)
_CLEAR: Final = frozenset({Counter.CLEAR_IN, Counter.CLEAR_OUT})
_CLEAR_REASON: Final = "clear-text"
_DETAIL: Final[Mapping[Counter, str]] = MappingProxyType(
    {
        Counter.REFUSED_POLICY_OUT: "refused in the kernel at the client's side",
        Counter.REFUSED_POLICY_IN: "refused in the kernel: plain text",
        Counter.REFUSED_POLICY_TUNNEL: "refused in the kernel: no identity may ask for anything from that address",
        Counter.REFUSED_POLICY_UDP: "refused in the kernel at the pod that it was for",
        Counter.REFUSED_POLICY_ICMP: "refused in the kernel at the pod that it was for",
        Counter.CLEAR_OUT: "left a captured pod in the clear without leave",
        Counter.CLEAR_IN: "came to a captured pod in the clear without leave",
    }
)

_PROTOCOL: Final[Mapping[Counter, str]] = MappingProxyType(
    {Counter.REFUSED_POLICY_UDP: "udp", Counter.REFUSED_POLICY_ICMP: "icmp"}
)

log = logging.getLogger("ambient.agent.packets")


class Ring(Protocol):
    """events.h, as `ambient.datapath.events` has it."""

    def read(self) -> Heard: ...


class Packets:
    """`workload` names who has an address on this node, `denial` what a row of a number refuses with."""

    def __init__(
        self,
        node: str,
        ring: Ring,
        counters: Callable[[], Mapping[Counter, int]],
        workload: WorkloadAt,
        denial: Callable[[int], Denied | None],
        *,
        epoch: Callable[[], float] = lambda: time.time() - time.monotonic(),
    ) -> None:
        """`epoch`: when the monotonic clock was at nought, in seconds since 1970."""
        self._node = node
        self._ring = ring
        self._counters = counters
        self._workload = workload
        self._denial = denial
        self._epoch = epoch
        self._store = FlowStore(CAPACITY)
        self._untold = self._now_untold()
        self._alarmed = False

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(INTERVAL_S)

    def look(self) -> None:
        """Take in what was told since the last time."""
        epoch = self._epoch()
        heard = self._ring.read()
        flows = [self._flow(one, epoch) for one in heard.packets]
        flows += [record_of(one, self._node, epoch, self._workload) for one in heard.flows]
        self._store.add(sorted(flows, key=lambda flow: flow.time_unix))
        untold = self._now_untold()
        if untold > self._untold:
            self._store.lost(untold - self._untold)
        self._untold = untold
        for one in heard.packets:
            if one.reason in _CLEAR and not self._alarmed:
                self._alarmed = True
                log.error("data in the clear without leave: %s -> %s (told once)", one.source, one.destination)

    def add(self, flows: Iterable[Flow]) -> None:
        """Records that somebody else made."""
        self._store.add(flows)

    def lines(self, last: int, after: int = 0) -> str:
        """The last so many records with a higher number than `after`, one JSON object per line."""
        flows = self._store.after(after, CAPACITY).flows
        return "".join(to_json(flow) + "\n" for flow in flows[len(flows) - min(last, len(flows)) :])

    def _now_untold(self) -> int:
        counters = self._counters()
        return sum(counters.get(reason, 0) for reason in _UNTOLD)

    def _flow(self, one: Told, epoch: float) -> Flow:
        source, destination = self._workload(one.source.ip), self._workload(one.destination.ip)
        denial = self._denial(one.rule)
        clear = one.reason in _CLEAR
        return Flow(
            event=Event.FAILED if clear else Event.DENIED,
            time_unix=one.time_s + epoch,
            node=self._node,
            direction="inbound" if one.arriving else "outbound",
            source=str(one.source),
            destination=str(one.destination),
            **names_of(source, destination, arriving=one.arriving),
            flags="-" if clear else "DENY",
            reason=_CLEAR_REASON if clear else str(denial.reason) if denial is not None else one.reason.name.lower(),
            policy="" if denial is None else denial.policy,
            detail=_DETAIL.get(one.reason, ""),
            bytes_sent=one.size if clear else 0,
            protocol=_PROTOCOL.get(one.reason, ""),
        )
