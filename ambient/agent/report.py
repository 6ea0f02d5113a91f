"""What the agent says to people and to the scheduler: events on pods that cannot be captured, and the node's taint.

Only where there is an API server. Nothing waits for it: what could not be said is said the next time round.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ambient.agent.converge import State, Tracked
from ambient.agent.enrol import MODE_LABEL, NotEnrolled
from ambient.errors import MeshError
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import Conflict, NotThere
from ambient.kube.objects import Pod
from ambient.kube.resource import Resource

COMPONENT: Final = "ambient-agent"
NOT_CAPTURED: Final = "NotInMesh"
CAPTURED: Final = "InMesh"
REPAIRED: Final = "DatapathRepaired"
REPEAT_S: Final = 300.0
"""An event that stays true is told again after this long: the API server forgets them after an hour."""
SAY_AFTER_S: Final = 10.0
"""A pod that is on its way for so long is a problem."""
_TOLD: Final = frozenset(
    {
        *(NotEnrolled.HOST_NETWORK, NotEnrolled.SIDECAR, NotEnrolled.EXCLUDED_NAMESPACE),
        *(NotEnrolled.ADDRESS_TAKEN, NotEnrolled.UNREADABLE),
    }
)
"""Reasons to stay out that whoever labelled the pod itself should hear of."""
_EVENTS: Final = Resource("v1", "events")
_NODES: Final = Resource("v1", "nodes", namespaced=False)
_LONGEST: Final = 1000

log = logging.getLogger("ambient.agent.report")


@dataclass(slots=True)
class _Told:
    pod: Pod
    message: str
    at: float
    count: int = 1


class Report:
    """`clock` gives Unix seconds."""

    def __init__(self, client: ApiClient, node: str, taint: str, clock: Callable[[], float] = time.time) -> None:
        self._client = client
        self._node = node
        self._taint = taint
        self._clock = clock
        self._told: dict[str, _Told] = {}
        self._repaired: dict[str, int] = {}
        self._untainted = not taint

    async def tell(self, problems: Mapping[str, tuple[Pod, str]], known: Mapping[str, Pod]) -> None:
        """`problems`: by uid, the pods that should be captured and are not, with the reason. `known`: the node's pods.
        Each new reason becomes an event, and so does the end of them."""
        self._repaired = {uid: count for uid, count in self._repaired.items() if uid in known}
        for uid in self._told.keys() - problems.keys():
            told = self._told.pop(uid)
            if uid in known:
                await self._event(told.pod, "Normal", CAPTURED, "in the mesh now", 1)
        for uid, (pod, message) in problems.items():
            before = self._told.get(uid)
            now = self._clock()
            if before is not None and before.message == message and now - before.at < REPEAT_S:
                continue
            count = before.count + 1 if before is not None and before.message == message else 1
            if await self._event(pod, "Warning", NOT_CAPTURED, message, count):
                self._told[uid] = _Told(pod, message, now, count)

    async def repaired(self, pod: Pod, what: str) -> None:
        """Somebody changed what the kernel has of the pod, and it was put back."""
        count = self._repaired[pod.uid] = self._repaired.get(pod.uid, 0) + 1
        await self._event(pod, "Warning", REPAIRED, what, count)

    async def _event(self, pod: Pod, kind: str, reason: str, message: str, count: int) -> bool:
        """The same words about the same pod are one event that is counted."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        digest = hashlib.sha256(f"{pod.uid}/{reason}/{message}".encode()).hexdigest()[:16]
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{pod.name[:200]}.{digest}", "namespace": pod.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": pod.namespace,
                "name": pod.name,
                "uid": pod.uid,
            },
            "type": kind,
            "reason": reason,
            "message": message[:_LONGEST],
            "source": {"component": COMPONENT, "host": self._node},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": count,
        }
        try:
            try:
                await self._client.create(_EVENTS, body, pod.namespace)
            except Conflict:
                await self._client.patch(
                    _EVENTS, f"{pod.name[:200]}.{digest}", {"lastTimestamp": now, "count": count}, pod.namespace
                )
        except NotThere:
            return True  # its namespace is going
        except MeshError as error:
            log.warning("no event on pod %s/%s: %s", pod.namespace, pod.name, error)
            return False
        return True

    async def open_node(self) -> None:
        """Take the taint off the node, once: pods may come. What fails is tried by the next call."""
        if not self._untainted:
            try:
                await remove_taint(self._client, self._node, self._taint)
                self._untainted = True
            except MeshError as error:
                log.warning("node %s: taint %s stays: %s", self._node, self._taint, error)


def find_problems(
    pods: Mapping[str, Pod],
    tracked: Mapping[str, Tracked],
    out: Mapping[str, NotEnrolled],
    pending: Mapping[str, str],
    served: Callable[[str], bool] = lambda _: True,
) -> dict[str, tuple[Pod, str]]:
    """The pods that belong to the mesh and are not in it, by uid, with the reason. `pending`: those that no ztunnel
    serves yet, with what it said. `served`: whether ztunnel has a certificate for an enrolled one."""
    found = {}
    for uid, pod in pods.items():
        one = tracked.get(uid)
        if one is not None and one.state is State.WAITING and one.overdue(SAY_AFTER_S):
            found[uid] = (pod, why(uid, one, pending))
        elif one is not None and one.state is State.ENROLLED and one.overdue(SAY_AFTER_S) and not served(uid):
            found[uid] = (pod, uncertified(pod.service_account))
        elif one is None and pod.labels.get(MODE_LABEL) == "ambient" and out.get(uid) in _TOLD:
            found[uid] = (pod, out[uid].value)
    return found


def uncertified(service_account: str) -> str:
    """What a pod waits for whose identity ztunnel cannot have yet."""
    return (
        f"ztunnel has no certificate for its service account {service_account} yet; "
        "look at the pod of daemonset ztunnel on this node, and whether the control plane runs"
    )


def why(uid: str, tracked: Tracked | None, pending: Mapping[str, str]) -> str:
    """What a pod on its way into the mesh waits for."""
    if tracked is not None and tracked.problem:
        return tracked.problem
    if uid in pending:
        said = f" ({pending[uid]})" if pending[uid] else ""
        return f"no ztunnel serves it{said}; look at the pod of daemonset ztunnel on this node"
    return "it is not captured yet"


async def remove_taint(client: ApiClient, node: str, key: str) -> None:
    """Take every taint of this key off the node, whatever its value and effect. Raises MeshError."""
    while True:
        found = await client.get(_NODES, node)
        taints = (found.get("spec") or {}).get("taints") or []
        kept = [taint for taint in taints if taint.get("key") != key]
        if kept == taints:
            return
        body = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "spec": {"taints": kept or None}}
        try:
            await client.patch(_NODES, node, body)
        except Conflict:
            continue
        log.info("node %s: taint %s removed", node, key)
        return
