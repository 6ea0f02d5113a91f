"""What the agent knows of policies: a discovery subscription of its own, and the questions it answers about a pod.

It subscribes on demand: the control plane tells it of its node's workloads and of every policy, what they depend on it
asks for by name, and the rest of the cluster costs it nothing. Until all that matters for a pod was received, the
answer about it is "not known", which the rest of the agent reads as closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from ambient.agent.enrol import PodTarget
from ambient.kube.records import Pod
from ambient.model.address import Endpoint, IpAddress
from ambient.model.decide import PolicyIndex, past_waypoint
from ambient.model.deny import Guarded
from ambient.model.mesh import Mesh, PolicySetInput
from ambient.model.outcome import Connection, Forward, Plan, Verdict
from ambient.model.route import route
from ambient.model.waypoints import needs_of, open_ports, waypoint_principals
from ambient.model.workload import Workload
from ambient.xds.channel import ServerSettings
from ambient.xds.client import Batch, DeltaClient, lacks
from ambient.xds.messages import ztunnel_node
from ambient.xds.subscribe import StreamState, subscribe

ANY_PORT: Final = 80
"""The way to a pod's own address is the same for all ports."""
ABSENCE_S: Final = 5.0
"""How long at least (twice that at most) "there is no such thing" holds: then it is asked for again."""

log = logging.getLogger("ambient.agent.discovery")


class Policies:
    """`changed` is called after each batch that changed something, and when everything is known for the first time.

    `client` is the state of the subscription. `only_waypoints`: what has a waypoint takes connections from nobody else,
    as the node's ztunnel has it.
    """

    def __init__(
        self,
        node: str,
        cluster: str,
        namespace: str,
        changed: Callable[[], None],
        *,
        network: str = "",
        only_waypoints: bool = True,
    ) -> None:
        self._node = node
        self._identification = ztunnel_node(node, pod="agent", namespace=namespace, cluster=cluster)
        self._cluster = cluster
        self._network = network
        self.client = DeltaClient(self._identification, on_demand=True)
        self.client.on_decided = self._decided
        self._mesh = Mesh()
        self._judges: dict[str, Callable[[Connection], Verdict]] = {}
        self._selected: dict[tuple[str, tuple[str, ...]], PolicySetInput] = {}
        self._only_waypoints = only_waypoints
        self._changed = changed
        self._synced = False

    @property
    def known(self) -> bool:
        return self.client.complete

    @property
    def current(self) -> bool:
        """What is known is what the control plane says now."""
        return self._synced and self.known

    def apply(self, batch: Batch) -> None:
        """Take in what one response changed."""
        for name, why in batch.refused.items():
            log.warning("discovery: %s refused: %s", name, why)
        if self._mesh.apply(batch.put, batch.gone) or batch.first:
            self._judges.clear()
            self._selected.clear()
            self._changed()

    def apply_to(self, pod: Pod | PodTarget) -> bool:
        """STRICT, any policy or a waypoint guards the pod, or nobody can tell yet."""
        workload = self._workload(pod)
        if workload is None:
            return True
        selecting = self._selecting(workload)
        return bool(selecting.policies or selecting.missing or waypoint_principals(self._mesh, workload))

    def workload_of(self, pod: PodTarget) -> Workload | None:
        """The pod as discovery knows it; None while not all is known that its policy rests on."""
        return self._workload(pod)

    def plan_of(self, pod: PodTarget, dialled: Endpoint) -> tuple[Workload, Plan] | None:
        """The pod, and where it gets to when it dials this; None while it is not known."""
        workload = self._workload(pod)
        if workload is None:
            return None
        routed = route(self._mesh, workload, dialled, network=self._network)
        if lacks(self.client, self._mesh, routed.depends):
            return None
        return workload, routed.plan

    def judge_of(self, pod: PodTarget) -> Callable[[Connection], Verdict] | None:
        """How a connection to the pod is judged now; None while it is not known."""
        workload = self._workload(pod)
        if workload is None:
            return None
        judge = self._judges.get(workload.uid)
        if judge is None:
            judge = self._judges[workload.uid] = self._judge(workload)
        return judge

    def _judge(self, workload: Workload) -> Callable[[Connection], Verdict]:
        selecting = self._selecting(workload)
        index = PolicyIndex(selecting.policies, selecting.missing)
        waypoints, ports = self._waypoints(workload), open_ports(self._mesh, workload)
        return lambda connection: past_waypoint(waypoints, ports, connection) or index.judge(connection)

    def _selecting(self, workload: Workload) -> PolicySetInput:
        """The policies that select it: put together once for all pods of a namespace that name the same."""
        alike = workload.namespace, workload.authorization_policies
        found = self._selected.get(alike)
        if found is None:
            found = self._selected[alike] = self._mesh.policies_of(workload)
        return found

    def _waypoints(self, workload: Workload) -> tuple[str, ...]:
        return waypoint_principals(self._mesh, workload) if self._only_waypoints else ()

    def guarded(self, pod: PodTarget) -> tuple[Workload, Guarded] | None:
        """What guards the pod now; None while it is not known."""
        workload = self._workload(pod)
        if workload is None:
            return None
        selecting = self._selecting(workload)
        return workload, Guarded(
            workload.identity,
            selecting.policies,
            bool(selecting.missing),
            self._waypoints(workload),
            open_ports(self._mesh, workload),
        )

    def workload_at(self, address: IpAddress) -> Workload | None:
        """Who has the address, as far as it is known on this node."""
        found = self._mesh.workload_by_address(self._network, address)
        return None if found is None or found.refused else found

    def tunnels_to(self, source: Workload, address: IpAddress) -> bool:
        """Connections from this pod to the address go straight there, in a tunnel of the pod's identity."""
        plan = route(self._mesh, source, Endpoint(address, ANY_PORT), network=self._network).plan
        if not isinstance(plan, Forward) or len(plan.hops) != 1:
            return False
        hop = plan.hops[0]
        return hop.authority == str(Endpoint(address, ANY_PORT)) and hop.ip == str(address) and not hop.through_waypoint

    def _workload(self, pod: Pod | PodTarget) -> Workload | None:
        """The pod as discovery knows it, once all is known that its policy rests on."""
        if not self.known:
            return None
        canonical = self._mesh.workload(f"{self._cluster}//Pod/{pod.namespace}/{pod.name}")
        if canonical is not None and canonical.node != self._node:
            canonical = None
        workload = canonical or self._mesh.local_workload(pod.namespace, pod.name, self._node)
        if workload is None or workload.refused or lacks(self.client, self._mesh, needs_of(self._mesh, workload)):
            return None
        if workload.service_account != pod.service_account:
            return None  # still of the pod that had this name before
        return workload

    async def follow(self, settings: ServerSettings) -> None:
        """Keep subscribed until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(subscribe(settings, self._identification, self.apply, self._note, core=self.client))
            group.create_task(self._age())

    async def _age(self) -> None:
        while True:
            await asyncio.sleep(ABSENCE_S)
            if self.client.age():
                self._decided()

    def _decided(self) -> None:
        self._judges.clear()
        self._changed()

    def _note(self, state: StreamState) -> None:
        self._synced = state.state == "synced"
        if state.state == "disconnected":
            log.warning("discovery: %s; next attempt in %.2f s", state.why, state.retry_in_s)
        elif state.state == "synced":
            log.info("discovery: everything is known")
            self._changed()
