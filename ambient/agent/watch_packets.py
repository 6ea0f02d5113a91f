"""Turns what the programs tell of single packets into flow records: who was refused in the kernel, by which policy, and
who sent data in the clear.

The ring is emptied once a second: events are thinned where they are made, so that no flood costs more than that. What
was not told is a gap in the numbers of the records. May not count: totals are the kernel's own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from ambient.datapath.events import Told
from ambient.datapath.layout import Counter
from ambient.flows.record import Event, Flow, to_json
from ambient.flows.store import FlowStore
from ambient.model.address import IpAddress
from ambient.model.outcome import Denied
from ambient.model.workload import Workload

INTERVAL_S: Final = 1.0
CAPACITY: Final = 4096
"""So many records are kept."""
_UNTOLD: Final = (Counter.EVENT_LOST, Counter.EVENT_THINNED)
_CLEAR: Final = frozenset({Counter.CLEAR_IN, Counter.CLEAR_OUT})
_CLEAR_REASON: Final = "clear-text"
_DETAIL: Final[Mapping[Counter, str]] = MappingProxyType(
    {
        Counter.REFUSED_POLICY_OUT: "refused in the kernel at the client's side",
        Counter.REFUSED_POLICY_IN: "refused in the kernel: plain text",
        Counter.REFUSED_POLICY_TUNNEL: "refused in the kernel: no identity may ask for anything from that address",
        Counter.CLEAR_OUT: "left a captured pod in the clear without leave",
        Counter.CLEAR_IN: "came to a captured pod in the clear without leave",
    }
)

log = logging.getLogger("ambient.agent.packets")


class Ring(Protocol):
    """events.h, as `ambient.datapath.events` has it."""

    def read(self) -> list[Told]: ...


class Packets:
    """`workload` names who has an address on this node, `denial` what a row of a number refuses with."""

    def __init__(
        self,
        node: str,
        ring: Ring,
        counters: Callable[[], Mapping[Counter, int]],
        workload: Callable[[IpAddress], Workload | None],
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
        told = self._ring.read()
        self._store.add(self._flow(one, epoch) for one in told)
        untold = self._now_untold()
        if untold > self._untold:
            self._store.lost(untold - self._untold)
        self._untold = untold
        for one in told:
            if one.reason in _CLEAR and not self._alarmed:
                self._alarmed = True
                log.error("data in the clear without leave: %s -> %s (told once)", one.source, one.destination)

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
            source_pod="" if source is None else source.name,
            source_namespace="" if source is None else source.namespace,
            # Only of a pod of this node is the identity known by its namespace; an address proves nobody.
            source_principal=str(source.identity) if source is not None and not one.arriving else "",
            destination_pod="" if destination is None else destination.name,
            destination_namespace="" if destination is None else destination.namespace,
            flags="-" if clear else "DENY",
            reason=_CLEAR_REASON if clear else str(denial.reason) if denial is not None else one.reason.name.lower(),
            policy="" if denial is None else denial.policy,
            detail=_DETAIL.get(one.reason, ""),
            bytes_sent=one.size if clear else 0,
        )
