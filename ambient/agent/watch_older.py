"""Keeps an eye on the connections that are older than their pod's enrolment: lists them, ends what policy forbids.

Judges with the same `decide` as ztunnel, on a plaintext connection from the address of the peer. A policy that was
named and has not arrived refuses only when it is still missing a second later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from ambient.agent.enrol import PodTarget
from ambient.agent.journal import Journal, OlderConnection
from ambient.agent.kernel import Kernel
from ambient.agent.metrics import Tally
from ambient.agent.older import Live, forbidden, still_open
from ambient.agent.podns import PodNetns
from ambient.errors import MeshError
from ambient.model.outcome import Connection, Denied, Reason, Verdict

log = logging.getLogger("ambient.agent.older")

Judge = Callable[[Connection], Verdict]
JudgeOf = Callable[[PodTarget], Judge | None]
"""The policies of a pod, None while discovery has not told them."""


class OlderConnections:
    def __init__(
        self,
        kernel: Kernel,
        journal: Journal,
        namespaces: Mapping[str, PodNetns],
        judge_of: JudgeOf,
        tally: Tally,
        threads: Executor,
        *,
        patience_s: float = 1.0,
    ) -> None:
        """`patience_s`: how long a policy that was named may be missing before its absence refuses."""
        self._kernel = kernel
        self._journal = journal
        self._namespaces = namespaces
        self._judge_of = judge_of
        self._tally = tally
        self._threads = threads
        self._patience_s = patience_s
        self._missing: dict[int, float] = {}
        self._turn = asyncio.Lock()

    async def listing(self, uid: str) -> list[Live]:
        """Those of a pod that still live; what has ended is forgotten. [] for a pod that is not captured."""
        entry, netns = self._journal.get(uid), self._namespaces.get(uid)
        if entry is None or netns is None or not entry.older:
            return []
        try:
            loop = asyncio.get_running_loop()
            sockets = await loop.run_in_executor(self._threads, self._kernel.sockets, netns)
        except (MeshError, OSError) as error:
            log.warning("pod %s: cannot list its connections: %s", entry.pod, error)
            return []
        live = still_open(entry.older, sockets)
        now = self._journal.get(uid)
        if now is not None and len(live) < len(now.older) and now.older == entry.older:
            self._journal.change(uid, older=tuple(one.connection for one in live))
        return live

    async def judge(self) -> None:
        """End every inbound one that policy forbids now."""
        async with self._turn:
            waiting = self._missing
            self._missing = {}
            for entry in list(self._journal):
                judge = self._judge_of(entry.pod)
                if judge is None or not entry.since_unix or not any(c.inbound for c in entry.older):
                    continue
                denials = forbidden(entry.older, judge)
                condemned = {c.cookie: denied for c, denied in denials if self._is_due(c, denied, waiting)}
                try:
                    await self._end(entry.pod, condemned, "policy")
                except (MeshError, OSError) as error:
                    log.error("pod %s: cannot end connections that policy forbids: %s", entry.pod, error)

    def _is_due(self, connection: OlderConnection, denied: Denied, waiting: Mapping[int, float]) -> bool:
        """A policy that has not arrived yet gets a second to arrive. `waiting`: since when, as of the last judgement;
        who no longer waits is not kept."""
        if denied.reason is not Reason.POLICY_NOT_RECEIVED:
            return True
        now = asyncio.get_running_loop().time()
        since = self._missing[connection.cookie] = waiting.get(connection.cookie, now)
        return now - since >= self._patience_s

    async def cut(self, uid: str) -> int:
        """End all of a pod; gives how many there were. Raises MeshError."""
        entry = self._journal.get(uid)
        if entry is None:
            return 0
        return await self._end(entry.pod, {c.cookie: None for c in entry.older}, "request")

    async def _end(self, pod: PodTarget, condemned: Mapping[int, Denied | None], why: str) -> int:
        live = [one for one in await self.listing(pod.uid) if one.connection.cookie in condemned] if condemned else []
        netns = self._namespaces.get(pod.uid)
        if not live or netns is None:
            return 0
        loop = asyncio.get_running_loop()
        ended = await loop.run_in_executor(self._threads, self._kernel.end, netns, [one.socket for one in live])
        for one in live:
            log.info("pod %s: ended %s: %s", pod, _text(one.connection), condemned[one.connection.cookie] or why)
        self._tally.count_cut(why, len(ended))
        await self.listing(pod.uid)
        return len(ended)


def _text(connection: OlderConnection) -> str:
    return f"{connection.remote} {'->' if connection.inbound else '<-'} {connection.local} (older than the enrolment)"
