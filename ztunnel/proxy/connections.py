"""The live inbound connections of a pod, each judged by the pod's current policy: first, and again at every change.

Registration comes before the first judgement, so that no change can slip between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ambient.model.decide import SharedIndexes
from ambient.model.outcome import Connection, Denied, Reason, Verdict
from ztunnel.ipc.messages import PodPolicy
from ztunnel.telemetry.record import Failure, Flag

_WORDS = {
    Reason.DENIED_BY: "explicitly denied by: {policy}",
    Reason.NO_ALLOW_MATCHED: "allow policies exist, but none allowed",
    Reason.POLICY_NOT_RECEIVED: "policy not received: {policy}",
    Reason.NOT_ITS_WAYPOINT: "peer is not the waypoint of this workload",
}


class Judged(Protocol):
    """A live inbound connection."""

    connection: Connection

    def cut(self, failure: Failure) -> None:
        """End it now, both sides."""


def denial(verdict: Denied, occasion: str = "rejection") -> Failure:
    """The verdict as record of failure, in Istio's words."""
    words = _WORDS.get(verdict.reason, "{reason}").format(policy=verdict.policy, reason=verdict.reason)
    text = f"connection closed due to policy {occasion}" + (f": {words}" if occasion == "rejection" else "")
    return Failure(Flag.DENY, text, str(verdict.reason), verdict.policy, verdict.detail or words)


class LiveConnections:
    """Registry and judge of one pod; `indexes` are those of the worker."""

    __slots__ = ("_crashed", "_index", "_indexes", "_live", "_policy")

    def __init__(
        self, policy: PodPolicy, crashed: Callable[[str, BaseException], None], indexes: SharedIndexes
    ) -> None:
        self._indexes = indexes
        self._crashed = crashed
        self._live: dict[Judged, None] = {}
        self._policy = policy
        self._index = indexes.of(policy.policies, policy.missing)

    def __len__(self) -> int:
        return len(self._live)

    def register(self, live: Judged) -> None:
        self._live[live] = None

    def release(self, live: Judged) -> None:
        self._live.pop(live, None)

    def judge(self, live: Judged) -> Verdict:
        """The verdict of the policy in force now. Behind a waypoint only the waypoint comes in, and plain text proves
        nobody."""
        waypoints = self._policy.waypoint_principals
        if waypoints and live.connection.destination_port not in self._policy.open_ports:
            peer = live.connection.peer
            if peer is None or (str(peer) not in waypoints and peer.principal not in waypoints):
                return Denied(Reason.NOT_ITS_WAYPOINT, detail=f"only {', '.join(waypoints)} may come in")
        return self._index.judge(live.connection)

    def replace(self, policy: PodPolicy) -> int:
        """New policy: judge every live connection again, cut those that fail; returns how many."""
        self._policy = policy
        self._index = self._indexes.of(policy.policies, policy.missing)
        failed = [(live, verdict) for live in self._live if isinstance(verdict := self.judge(live), Denied)]
        for live, verdict in failed:
            self._cut(live, denial(verdict, "change"))
        return len(failed)

    def cut_all(self, failure: Failure) -> None:
        """End every connection (the pod is going away)."""
        for live in list(self._live):
            self._cut(live, failure)

    def _cut(self, live: Judged, failure: Failure) -> None:
        try:
            live.cut(failure)
        except Exception as error:
            # The others must be cut all the same.
            self._crashed("cut", error)
