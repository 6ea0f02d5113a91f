"""Says which connections between two pods of the node may take the kernel path: both ask for it, and policy was asked.

A pod's first connection to an endpoint takes the tunnel and leaves a note; what ztunnel would decide is decided here by
the same functions on the same facts (`route`, `decide`, with the identity that the namespace proves), and if that is
one plain way to a pod of the node, the next connections need no tunnel. Whatever changes has all of it judged again at
once: a grant that is not certain any more goes, and what is open and refused is cut. Grants count for seconds only,
renewed while discovery is connected: without it new connections take the tunnel.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from ambient.agent.converge import State, Tracked
from ambient.agent.enrol import PodTarget
from ambient.datapath.direct import Call
from ambient.errors import MeshError
from ambient.model.address import ZTUNNEL_PORTS, Endpoint, IpAddress
from ambient.model.direct import direct_hop
from ambient.model.outcome import Connection, Denied, PeerLabels, Plan, Reason, ServiceLabels, Verdict
from ambient.model.route import peer_labels
from ambient.model.workload import Workload

LEASE_S: Final = 3.0
MOST_PER_POD: Final = 1_024
"""Grants of one pod: what it dials beyond them takes the tunnel."""
REST: Final = 4.0

log = logging.getLogger("ambient.agent.direct")


class Right(Enum):
    """What may become of a connection. DOUBT: new ones take the tunnel, open ones stay."""

    YES = "yes"
    DOUBT = "doubt"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Judged:
    """`why` it may not; `policy` whose doing that is. What telemetry says about both sides, where it may."""

    right: Right
    why: str = ""
    policy: str = ""
    source: PeerLabels = PeerLabels()
    destination: PeerLabels = PeerLabels()
    service: ServiceLabels = ServiceLabels()
    server: Endpoint | None = None


class Tables(Protocol):
    """direct.h, as `ambient.datapath.direct` has it."""

    def grant(self, call: Call, server: Endpoint, /) -> None: ...
    def revoke(self, calls: Collection[Call], /) -> None: ...
    def grants(self) -> list[Call]: ...
    def take_asks(self) -> list[Call]: ...
    def ways(self) -> Collection[object]: ...
    def renew(self, seconds: float, /) -> None: ...


class Knowledge(Protocol):
    """What discovery knows, as `ambient.agent.discovery` has it. `current`: it is connected and lacks nothing."""

    @property
    def current(self) -> bool: ...
    def plan_of(self, pod: PodTarget, dialled: Endpoint, /) -> tuple[Workload, Plan] | None: ...
    def workload_of(self, pod: PodTarget, /) -> Workload | None: ...
    def judge_of(self, pod: PodTarget, /) -> Callable[[Connection], Verdict] | None: ...


class SameNode:
    """`pods` are those that the agent has in hand; `switch_on` has the programs look for direct connections at all;
    `changed` is called when what is open has to be looked at again; `ready` says whether it is known which pods belong
    in the mesh."""

    def __init__(
        self,
        tables: Tables,
        knowledge: Knowledge,
        pods: Callable[[], Collection[Tracked]],
        switch_on: Callable[[], None],
        changed: Callable[[], None],
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._tables = tables
        self._knowledge = knowledge
        self._pods = pods
        self._switch_on = switch_on
        self._changed = changed
        self._ready = ready
        self._granted: dict[Call, Judged] = {}
        self._by_address: Mapping[IpAddress, Tracked] = {}
        self._on = False

    @property
    def grants(self) -> int:
        return len(self._granted)

    @property
    def clients(self) -> Collection[IpAddress]:
        """The addresses that have grants."""
        return {call.source for call in self._granted}

    @property
    def on(self) -> bool:
        """Some pod of this node may take the kernel path, or could a moment ago."""
        return self._on

    def adopt(self) -> None:
        """Take over what an agent before us granted, and what is open: it is judged like everything else, as soon as
        that can be."""
        self._granted = dict.fromkeys(self._tables.grants(), Judged(Right.DOUBT))
        self._on = bool(self._granted or self._tables.ways())

    def refresh(self) -> None:
        """Everything anew: pods, policies or services have changed. Never raises."""
        self._see_pods()
        if not self._on:
            if not any(one.pod.capture.direct for one in self._by_address.values()):
                return
            self._on = True
        try:
            self._switch_on()
            self._judge_again()
        except (MeshError, OSError) as error:
            log.error("same-node kernel path: %s", error)
        except Exception:
            log.exception("same-node kernel path: unexpected")
        self._changed()

    def _see_pods(self) -> None:
        self._by_address = {ip: one for one in self._pods() for ip in one.pod.addresses}

    def _judge_again(self) -> None:
        lost = []
        for call in list(self._granted):
            judged = self.judge(call)
            if judged.right is Right.YES:
                self._granted[call] = judged
                continue
            lost.append(call)
        self._tables.revoke(lost)  # what the kernel keeps is judged again
        for call in lost:
            del self._granted[call]

    def judge(self, call: Call) -> Judged:
        """What ztunnel would say now, and whether it would be one way to a pod that is here."""
        if not self._ready():
            return Judged(Right.DOUBT)
        source = self._by_address.get(call.source)
        if source is None or not source.pod.capture.direct:
            return Judged(Right.NO, "its client does not take the kernel path")
        found = self._knowledge.plan_of(source.pod, call.dialled)
        if found is None:
            return Judged(Right.DOUBT)
        workload, plan = found
        way = direct_hop(plan)
        server = self._by_address.get(way.server.ip) if way is not None else None
        if way is None or server is None or server is source or way.server != call.dialled:
            return Judged(Right.NO, "it does not lead straight to a pod of this node")
        if way.server.port in ZTUNNEL_PORTS:
            return Judged(Right.NO, "a port of ztunnel")
        if not server.pod.capture.direct or not server.pod.capture.inbound:
            return Judged(Right.NO, "its server does not take the kernel path")
        judge, other = self._knowledge.judge_of(server.pod), self._knowledge.workload_of(server.pod)
        if judge is None or other is None:
            return Judged(Right.DOUBT)
        if str(other.identity) not in way.expected:
            return Judged(Right.NO, "its server is not who is expected there")
        if other.application_tunnel is not None:
            return Judged(Right.NO, "its server is to be told who calls")
        verdict = judge(Connection(call.source, way.server.ip, way.server.port, workload.identity))
        if isinstance(verdict, Denied):
            right = Right.DOUBT if verdict.reason is Reason.POLICY_NOT_RECEIVED else Right.NO
            return Judged(right, str(verdict.reason), verdict.policy)
        right = Right.YES if {source.state, server.state} == {State.ENROLLED} else Right.DOUBT
        if State.LEAVING in (source.state, server.state) or State.RELEASING in (source.state, server.state):
            right = Right.NO
        return Judged(right, "", "", peer_labels(workload), peer_labels(other), way.service, way.server)

    def look(self) -> None:
        """Answer what was asked, and have the grants count on while what we know is current. Raises KernelError."""
        if not self._on:
            return
        self._see_pods()
        self._tables.renew(LEASE_S if self._knowledge.current else 0)
        held = Counter(call.source for call in self._granted)
        for call in self._tables.take_asks():
            if held[call.source] >= MOST_PER_POD:
                continue
            judged = self.judge(call)
            if judged.right is not Right.YES or judged.server is None:
                continue
            self._tables.grant(call, judged.server)
            self._granted[call] = judged
            held[call.source] += 1


async def every(
    seconds: float, woken: asyncio.Event, *steps: Callable[[], None], clock: Callable[[], float] = time.thread_time
) -> None:
    """Take the steps each time, and at once when woken, until cancelled. What fails is logged and tried again: nobody
    else of the agent suffers from it. Steps that take long (of the CPU) leave the loop to others for REST times as
    long: pods decide how much there is."""
    while True:
        began = clock()
        for step in steps:
            try:
                step()
            except (MeshError, OSError) as error:
                log.error("same-node kernel path: %s", error)
            except Exception:
                log.exception("same-node kernel path: unexpected")
        try:
            async with asyncio.timeout(max(seconds, REST * (clock() - began))):
                await woken.wait()
        except TimeoutError:
            continue
        woken.clear()
