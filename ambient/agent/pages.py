"""What the agent shows over HTTP: /ready, /pods, /metrics, /flows, /strangers, /datapath, and POST /cut."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from ambient.agent.converge import Convergence, State, Tracked
from ambient.agent.custody import Custody
from ambient.agent.discovery import Policies
from ambient.agent.enrol import NotEnrolled, PodTarget
from ambient.agent.flow_totals import FlowTotals
from ambient.agent.http import Answer, Handler
from ambient.agent.journal import Journal
from ambient.agent.kernel import Kernel
from ambient.agent.kernel_policy import KernelPolicy
from ambient.agent.metrics import Reading, Tally, datapath_series, render
from ambient.agent.older import Live
from ambient.agent.watch_older import OlderConnections
from ambient.agent.watch_packets import Packets
from ambient.agent.ztunnels import Ztunnels
from ambient.datapath.layout import Counter as Reason
from ambient.datapath.variant import Variant
from ambient.errors import MeshError

_LONGEST_NUMBER: Final = 15


class Path(Protocol):
    """The same-node kernel path, as `ambient.agent.kernel_path` has it."""

    def shown(self) -> Mapping[str, int | bool]: ...
    def render(self) -> str: ...


class Pages:
    """`readiness` gives why the agent is not ready ("" when it is); `out` is (pod, reason) of pods outside."""

    def __init__(
        self,
        *,
        node: str,
        kernel: Kernel,
        journal: Journal,
        convergence: Convergence,
        older: OlderConnections,
        ztunnels: Ztunnels,
        custody: Custody,
        policies: Policies,
        tally: Tally,
        kernel_policy: KernelPolicy,
        packets: Packets,
        totals: FlowTotals,
        kernel_path: Path,
        counters: Callable[[], Mapping[Reason, int]],
        readiness: Callable[[], str],
        out: Callable[[], Mapping[str, tuple[str, NotEnrolled]]],
        variant: Variant,
    ) -> None:
        self._node = node
        self._kernel = kernel
        self._journal = journal
        self._convergence = convergence
        self._older = older
        self._ztunnels = ztunnels
        self._custody = custody
        self._policies = policies
        self._tally = tally
        self._kernel_policy = kernel_policy
        self._packets = packets
        self._totals = totals
        self._kernel_path = kernel_path
        self._counters = counters
        self._readiness = readiness
        self._out = out
        self._variant = variant

    def routes(self) -> Mapping[tuple[str, str], Handler]:
        return {
            ("GET", "/ready"): self.ready,
            ("GET", "/pods"): self.pods,
            ("GET", "/metrics"): self.metrics,
            ("GET", "/flows"): self.flows,
            ("GET", "/strangers"): self.strangers,
            ("GET", "/datapath"): self.datapath,
            ("POST", "/cut"): self.cut,
        }

    async def ready(self, _query: Mapping[str, str]) -> Answer:
        why = self._readiness()
        return Answer(json.dumps({"ready": not why, "why": why}) + "\n", 503 if why else 200)

    async def pods(self, _query: Mapping[str, str]) -> Answer:
        body = {
            "node": self._node,
            "pods": [await self._pod(uid, tracked) for uid, tracked in sorted(self._convergence.tracked.items())],
            "not_enrolled": [
                {"pod": pod, "uid": uid, "reason": reason.value} for uid, (pod, reason) in sorted(self._out().items())
            ],
            "ztunnels": self._ztunnels.count,
            "policies_known": self._policies.known,
            "policy_rows": self._kernel_policy.rows,
            "policy_stale": sorted(self._kernel_policy.stale.values()),
            "kernel_path": self._kernel_path.shown(),
            "counters": datapath_series(self._counters()),
        }
        return Answer(json.dumps(body, indent=2) + "\n")

    async def _pod(self, uid: str, tracked: Tracked) -> dict[str, Any]:
        entry = self._journal.get(uid)
        live = await self._older.listing(uid)
        rows = {ip: self._kernel.row(ip) for ip in tracked.pod.addresses}
        return {
            "pod": str(tracked.pod),
            "uid": uid,
            "state": tracked.state.value,
            "problem": tracked.problem,
            "addresses": {
                str(ip): None
                if row is None
                else {
                    "flags": [flag.name for flag in row.flags],
                    "fail_in": row.fail_in.name.lower(),
                    "fail_out": row.fail_out.name.lower(),
                    "epoch": row.epoch,
                }
                for ip, row in rows.items()
            },
            "service_account": tracked.pod.service_account,
            "step": entry.step.name if entry is not None else None,
            "since": entry.since_unix or None if entry is not None else None,
            "waits_for_ztunnel": uid in self._ztunnels.pending,
            "ztunnel_says": self._ztunnels.pending.get(uid, ""),
            "older_connections": [_shown(one) for one in live],
        }

    async def metrics(self, _query: Mapping[str, str]) -> Answer:
        tracked = self._convergence.tracked
        states = Counter(t.state.value for t in tracked.values())
        older = 0
        for uid in list(tracked):
            older += len(await self._older.listing(uid))
        reading = Reading(
            counters=self._counters(),
            pods_by_state={state.value: states.get(state.value, 0) for state in State},
            older=older,
            proxies=self._ztunnels.count,
            secrets=len(self._custody),
            policies_known=self._policies.known,
            policy_rows=self._kernel_policy.rows,
            policy_stale=len(self._kernel_policy.stale),
            policy_failures=self._kernel_policy.failures,
            judged=self._kernel_policy.counts(),
            failures=self._convergence.failures,
            tally=self._tally,
            flows=self._totals,
        )
        return Answer(render(reading) + self._kernel_path.render(), content_type="text/plain; version=0.0.4")

    async def flows(self, query: Mapping[str, str]) -> Answer:
        asked = [query.get("last", "100"), query.get("after", "0")]
        if any(not one.isascii() or not one.isdigit() or len(one) > _LONGEST_NUMBER for one in asked):
            return Answer("usage: GET /flows?last=N&after=SEQUENCE\n", 400, "text/plain")
        self._packets.look()
        last, after = map(int, asked)
        return Answer(self._packets.lines(last, after), content_type="application/jsonl")

    async def datapath(self, _query: Mapping[str, str]) -> Answer:
        return Answer(json.dumps(self._variant.as_json()) + "\n")

    async def strangers(self, _query: Mapping[str, str]) -> Answer:
        enrolled = [t.pod for t in self._convergence.tracked.values() if t.state is State.ENROLLED]
        found = {str(pod): await asyncio.to_thread(self._strangers, pod) for pod in enrolled}
        return Answer(json.dumps({pod: said for pod, said in sorted(found.items()) if said}, indent=2) + "\n")

    def _strangers(self, pod: PodTarget) -> list[dict[str, Any]]:
        try:
            netns = self._kernel.open_netns(pod)
        except MeshError:
            return []
        try:
            return [{"what": str(one), "first": one.first} for one in self._kernel.strangers(netns)]
        finally:
            netns.close()

    async def cut(self, query: Mapping[str, str]) -> Answer:
        name = query.get("pod", "")
        uid = next((uid for uid, t in self._convergence.tracked.items() if str(t.pod) == name), None)
        if uid is None:
            return Answer(json.dumps({"error": f"pod {name!r} is not in the mesh on this node"}) + "\n", 404)
        try:
            return Answer(json.dumps({"pod": name, "cut": await self._older.cut(uid)}) + "\n")
        except MeshError as error:
            return Answer(json.dumps({"error": str(error)}) + "\n", 503)


def _shown(one: Live) -> dict[str, str]:
    connection = one.connection
    return {
        "local": connection.local,
        "remote": connection.remote,
        "state": one.state,
        "direction": "inbound" if connection.inbound else "outbound",
    }
