"""What the agent knows of policies: a discovery subscription of its own, and the questions it answers about a pod.

Until everything was received once, the answer about every pod is "not known", which the rest of the agent reads as
closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ambient.agent.enrol import PodTarget
from ambient.kube.records import Pod
from ambient.model.decide import PolicyIndex
from ambient.model.mesh import Mesh
from ambient.model.outcome import Connection, Verdict
from ambient.model.waypoints import waypoint_principals
from ambient.xds.channel import ServerSettings
from ambient.xds.client import Batch, DeltaClient
from ambient.xds.messages import ztunnel_node
from ambient.xds.subscribe import StreamState, subscribe

log = logging.getLogger("ambient.agent.discovery")


class Policies:
    """`changed` is called after each batch that changed something, and when everything is known for the first time.

    `client` is the state of the subscription.
    """

    def __init__(self, node: str, cluster: str, namespace: str, changed: Callable[[], None]) -> None:
        self._node = node
        self._identification = ztunnel_node(node, pod="agent", namespace=namespace, cluster=cluster)
        self.client = DeltaClient(self._identification)
        self._mesh = Mesh()
        self._indexes: dict[str, PolicyIndex] = {}
        self._changed = changed

    @property
    def known(self) -> bool:
        return self.client.complete

    def apply(self, batch: Batch) -> None:
        """Take in what one response changed."""
        for name, why in batch.refused.items():
            log.warning("discovery: %s refused: %s", name, why)
        if self._mesh.apply(batch.put, batch.gone) or batch.first:
            self._indexes.clear()
            self._changed()

    def apply_to(self, pod: Pod | PodTarget) -> bool:
        """STRICT, any policy or a waypoint guards the pod, or nobody can tell yet."""
        if not self.known:
            return True
        workload = self._mesh.local_workload(pod.namespace, pod.name, self._node)
        if workload is None:
            return True
        selecting = self._mesh.policies_of(workload)
        return bool(selecting.policies or selecting.missing or waypoint_principals(self._mesh, workload))

    def judge_of(self, pod: PodTarget) -> Callable[[Connection], Verdict] | None:
        """How a connection to the pod is judged now; None while it is not known."""
        workload = self._mesh.local_workload(pod.namespace, pod.name, self._node) if self.known else None
        if workload is None:
            return None
        if workload.uid not in self._indexes:
            selecting = self._mesh.policies_of(workload)
            self._indexes[workload.uid] = PolicyIndex(selecting.policies, selecting.missing)
        return self._indexes[workload.uid].judge

    async def follow(self, settings: ServerSettings) -> None:
        """Keep subscribed until cancelled."""
        await subscribe(settings, self._identification, self.apply, self._note, core=self.client)

    def _note(self, state: StreamState) -> None:
        if state.state == "disconnected":
            log.warning("discovery: %s; next attempt in %.2f s", state.why, state.retry_in_s)
        elif state.state == "synced":
            log.info("discovery: everything is known")
            self._changed()
