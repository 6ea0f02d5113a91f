"""Follows each policy until all nodes have taken it, and has that written to it: by the replica that writes. When nodes
have come or gone for good it is counted anew.

Every replica has its own clients, so the one that writes asks the others for what they know (`/debug/acceptance`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from ambient.control.acceptance import Acceptance, Sight, Stream, accepted
from ambient.kube.objects import Condition, Pod, Records
from ambient.model.address import Endpoint
from ambient.waking import woken

TICK_S: Final = 0.1
SLOWEST_S: Final = 5.0
PATIENCE_S: Final = 2.0
"""How long "not yet" is worth nothing to say."""
NOBODY_S: Final = 15.0
"""For so long after our start nobody is told that no node is connected: they are on their way back."""
MOST_SLOW: Final = 30
"""Policies that are looked at node by node in one turn."""
RECOUNT_S: Final = 20.0
"""Who is missing or more at two looks so far apart has gone or come: a client that connects again does so sooner."""
ASK_S: Final = 1.0
APP: Final = "ambient-control"


@dataclass(slots=True)
class _Open:
    """A policy that is not known to be with everybody yet."""

    since: float
    pause_s: float = TICK_S
    next_at: float = 0.0


class Enforcement:
    """`clients()`: (node, stream) of this replica; `leading()`: whether it writes; `say(key)`: have what is said of an
    object put together again, with `verdict(key)` in it. `peers` are the other replicas' addresses."""

    def __init__(
        self,
        clients: Callable[[], Iterable[tuple[str, Stream]]],
        leading: Callable[[], bool],
        say: Callable[[str], None],
        *,
        namespace: str,
        replica: str,
        port: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clients = clients
        self._leading = leading
        self._say = say
        self._namespace = namespace
        self._replica = replica
        self._port = port
        self._clock = clock
        self._began = clock()
        self._acceptance = Acceptance()
        self._open: dict[str, _Open] = {}
        self._verdicts: dict[str, Condition] = {}
        self._recount_at = self._began + RECOUNT_S
        self._nodes = 0
        self._wake = asyncio.Event()
        self.peers: tuple[Endpoint, ...] = ()

    def hear(self, records: Records) -> None:
        """Every snapshot, before it is served."""
        now = self._clock()
        for key in self._acceptance.hear(records):
            self._verdicts.pop(key, None)
            self._open.pop(key, None)
            if key in self._acceptance.policies:
                self._open[key] = _Open(now)
        if records.changed is None or any(key.startswith(f"Pod/{self._namespace}/") for key in records.changed):
            self.peers = tuple(
                Endpoint(pod.ips[0], self._port())
                for pod in records.by_key.values()
                if isinstance(pod, Pod) and self._is_peer(pod)
            )
        self._wake.set()

    @property
    def policies(self) -> Collection[str]:
        """Keys of all policies that nodes are to take."""
        return self._acceptance.policies

    def verdict(self, key: str) -> Condition | None:
        """What is to be said now; None: wait, `say` comes when there is something."""
        return self._verdicts.get(key)

    def waits(self, key: str) -> bool:
        """Whether what is said of this object waits for the nodes."""
        return key in self._open and key not in self._verdicts

    def page(self) -> dict[str, Any]:
        return self._acceptance.page(self._clients())

    async def run(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_S)) as session:
            while True:
                self._wake.clear()
                if not self._open:
                    await woken(self._wake, max(self._recount_at - self._clock(), TICK_S))
                due = min((one.next_at for one in self._open.values()), default=self._recount_at)
                if self._leading() and due <= self._clock():
                    answers = await asyncio.gather(*(_ask(session, peer) for peer in self.peers))
                    self.judge([answer for answer in answers if answer is not None], silent=None in answers)
                await asyncio.sleep(TICK_S)

    def judge(self, others: Sequence[Mapping[str, Any]], *, silent: bool = False) -> None:
        """Look at what is open, with what other replicas say. `silent`: one of them does not answer."""
        now, sight, slow = self._clock(), Sight([self.page(), *others], silent=silent), 0
        if now >= self._recount_at:
            self._recount_at = now + RECOUNT_S
            self._recount(sight, now)
        for key, one in list(self._open.items()):
            if one.next_at > now:
                continue
            if slow >= MOST_SLOW:
                break
            one.pause_s = min(one.pause_s * 1.5, SLOWEST_S)
            one.next_at = now + one.pause_s
            found = self._acceptance.verdict(key, sight)
            slow += found is not None and found.status != "True"
            if found is None or found.status == "True":
                del self._open[key]
            elif now < one.since + PATIENCE_S or (found.reason == "NoNodes" and now < self._began + NOBODY_S):
                continue
            if found != self._verdicts.get(key):
                if found is None:
                    self._verdicts.pop(key, None)
                else:
                    self._verdicts[key] = found
                self._say(key)

    def _recount(self, sight: Sight, now: float) -> None:
        """Look again at what is with everybody when that is somebody else now."""
        if sight.silent:
            return
        if sight.nodes == self._nodes:
            said = accepted(sight.nodes)
            for key, verdict in self._verdicts.items():
                if verdict.status == "True" and verdict != said:
                    self._open.setdefault(key, _Open(now))
        self._nodes = sight.nodes

    def _is_peer(self, pod: Pod) -> bool:
        return (
            pod.namespace == self._namespace
            and pod.labels.get("app") == APP
            and pod.name != self._replica
            and pod.ready
            and bool(pod.ips)
        )


async def _ask(session: aiohttp.ClientSession, peer: Endpoint) -> Mapping[str, Any] | None:
    """What another replica knows; None when it does not say."""
    try:
        async with session.get(f"http://{peer}/debug/acceptance") as answer:
            page = msgspec.json.decode(await answer.content.read(64 << 20), type=_Page)
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    nodes = {name: {"acked": node.acked, "refuses": node.refuses} for name, node in page.nodes.items()}
    return {"nodes": nodes, "policies": page.policies}


class _Node(msgspec.Struct):
    acked: int
    refuses: dict[str, str]


class _Page(msgspec.Struct):
    nodes: dict[str, _Node]
    policies: dict[str, tuple[str, int, int]]
