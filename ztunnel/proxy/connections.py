"""The live inbound connections of a pod, each judged by the pod's current policy: first, and again at every change.

Registration comes before the first judgement, so that no change can slip between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from ambient.model.decide import SharedIndexes, past_waypoint
from ambient.model.explain import Explanation, ground
from ambient.model.outcome import Connection, Denied, DryRun, Reason, Verdict
from ztunnel.ipc.messages import PodPolicy
from ztunnel.telemetry.record import Failure, Flag

_WORDS = {
    Reason.DENIED_BY: "explicitly denied by: {policy}",
    Reason.NO_ALLOW_MATCHED: "allow policies exist, but none allowed",
    Reason.POLICY_NOT_RECEIVED: "policy not received: {policy}",
    Reason.NOT_ITS_WAYPOINT: "peer is not the waypoint of this workload",
}


_GROUNDS: Final = 256
"""Denials of which the ground is remembered."""


class Judged(Protocol):
    """A live inbound connection."""

    connection: Connection

    def cut(self, failure: Failure) -> None:
        """End it now, both sides."""


def _nobody(connection: Connection, verdict: Verdict, dry_runs: tuple[DryRun, ...]) -> None:
    """Hears nothing."""


def denial(verdict: Denied, occasion: str, ground: Explanation) -> Failure:
    """The verdict as record of failure, in Istio's words, with its ground in ours."""
    words = _WORDS.get(verdict.reason, "{reason}").format(policy=verdict.policy, reason=verdict.reason)
    text = f"connection closed due to policy {occasion}" + (f": {words}" if occasion == "rejection" else "")
    return Failure(Flag.DENY, text, str(verdict.reason), ground.policy, ground.text.removeprefix("denied: "))


class LiveConnections:
    """Registry and judge of one pod; `indexes` are those of the worker, `tell` hears what was decided of each
    connection at first, `count` that there is one more or one less."""

    __slots__ = ("_count", "_crashed", "_grounds", "_index", "_indexes", "_live", "_policy", "_tell")

    def __init__(
        self,
        policy: PodPolicy,
        crashed: Callable[[str, BaseException], None],
        indexes: SharedIndexes,
        tell: Callable[[Connection, Verdict, tuple[DryRun, ...]], None] = _nobody,
        count: Callable[[int], None] = lambda _by: None,
    ) -> None:
        self._count = count
        self._indexes = indexes
        self._crashed = crashed
        self._tell = tell
        self._live: dict[Judged, None] = {}
        self._take(policy)

    def _take(self, policy: PodPolicy) -> None:
        self._policy = policy
        self._index = self._indexes.of(policy.policies, policy.missing)
        self._grounds: dict[Connection, Explanation] = {}

    def __len__(self) -> int:
        return len(self._live)

    def register(self, live: Judged) -> None:
        self._live[live] = None
        self._count(1)

    def release(self, live: Judged) -> None:
        if self._live.pop(live, self) is None:
            self._count(-1)

    def admit(self, live: Judged) -> Failure | None:
        """The first judgement of a connection, told; why it may not come in, or None."""
        verdict = self.judge(live)
        self._tell(live.connection, verdict, self._index.dry_run(live.connection, verdict))
        if isinstance(verdict, Denied):
            return denial(verdict, "rejection", self._ground(live.connection, verdict))
        return None

    def judge(self, live: Judged) -> Verdict:
        """The verdict of the policy in force now."""
        waypoints = self._policy.waypoint_principals
        if waypoints:
            denied = past_waypoint(waypoints, self._policy.open_ports, live.connection)
            if denied is not None:
                return denied
        return self._index.judge(live.connection)

    def replace(self, policy: PodPolicy) -> int:
        """New policy: judge every live connection again, cut those that fail; returns how many."""
        self._take(policy)
        failed = [(live, verdict) for live in self._live if isinstance(verdict := self.judge(live), Denied)]
        for live, verdict in failed:
            self._cut(live, denial(verdict, "change", self._ground(live.connection, verdict)))
        return len(failed)

    def _ground(self, connection: Connection, verdict: Denied) -> Explanation:
        """Kept for a while: whoever is denied often comes again."""
        found = self._grounds.get(connection)
        if found is None:
            if len(self._grounds) >= _GROUNDS:
                self._grounds.clear()
            found = self._grounds[connection] = ground(self._index, connection, verdict)
        return found

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
