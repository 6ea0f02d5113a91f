"""The kubelet itself: turns every snapshot of the objects into running pods, routes, Services and DNS on one node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ambient.errors import MeshError
from ambient.kube.folder import ObjectFolder
from ambient.kube.objects import Node, Pod, Records, Service
from ambient.kube.status import file_name
from ambient.lab import cgroup, network
from ambient.lab.kubelet.dns import DnsServer
from ambient.lab.kubelet.names import Zone, zone
from ambient.lab.kubelet.pod import Host, PodRunner, netns_of, remove_files, say
from ambient.lab.kubelet.services import ruleset
from ambient.lab.run import ip_batch, run
from ambient.lab.settings import LabSettings
from ambient.lab.supervisor import ensure_supervisor
from ambient.model.address import IpAddress

_SUPERVISOR_CHECK_S: Final = 0.5


class Kubelet:
    """One node's kubelet. `run()` until cancelled; pods go on without it."""

    def __init__(self, settings: LabSettings, node: str, number: int) -> None:
        self._settings = settings
        self._node = node
        self._number = number
        self._objects = ObjectFolder(settings.names.objects)
        self._status = self._objects.status(f"kubelet-{node}")
        self._records = Records()
        self._zone = Zone()
        self._changed = asyncio.Condition()
        self._pods: dict[str, tuple[PodRunner, asyncio.Task[None]]] = {}
        self._rules = ""
        self._routes: list[str] = []
        self._host = Host(settings, node, number, self._status, self._until, self._acknowledge, self._forget_enrolment)

    async def run(self) -> None:
        server = DnsServer(lambda: self._zone)
        await server.start(self._settings.plan.dns.both())
        guard = asyncio.create_task(self._guard_supervisor())
        try:
            async for records in self._objects.changes():
                await self._take(records)
        finally:
            guard.cancel()
            server.close()

    async def _take(self, records: Records) -> None:
        first = self._records.revision == 0
        self._zone = zone(records)
        self._program(records)
        if first:
            await self._clear_leftovers(records)
        async with self._changed:
            self._records = records
            self._changed.notify_all()
        mine = {pod.uid: pod for pod in records.of(Pod) if pod.node_name == self._node and pod.uid}
        for uid, pod in mine.items():
            if uid not in self._pods and not (pod.deleting and self._same_name_runs(pod)):
                self._begin(pod)
        for uid, (runner, _) in self._pods.items():
            if uid not in mine or mine[uid].deleting:
                runner.end()
        self._acknowledge()

    def _begin(self, pod: Pod) -> None:
        runner = PodRunner(pod, self._host)
        self._pods[pod.uid] = runner, asyncio.create_task(self._attend(runner))

    def _same_name_runs(self, pod: Pod) -> bool:
        return any(runner.pod.key == pod.key for runner, _ in self._pods.values())

    async def _attend(self, runner: PodRunner) -> None:
        """Run the pod; when all of it is gone, so is the object."""
        pod = runner.pod
        before = [task for other, task in self._pods.values() if other.pod.key == pod.key and other is not runner]
        if before:  # an older pod of this name still ends: its namespace has our name
            await asyncio.wait(before)
        try:
            await runner.run()
        except (MeshError, OSError, ExceptionGroup) as error:
            say(f"pod {pod.namespace}/{pod.name}: {error}")
            runner.end()
            await runner.run()
        current = self._objects.records().find(Pod, pod.namespace, pod.name)
        if current is not None and current.uid == pod.uid and current.deleting:
            self._objects.delete([pod])
        self._pods.pop(pod.uid, None)
        self._acknowledge()

    def _acknowledge(self) -> None:
        """Every pod of the snapshot is started (or cannot be), every other has gone: the revision is done."""
        wanted = {pod.uid for pod in self._records.of(Pod) if pod.node_name == self._node and not pod.deleting}
        if all(uid in self._pods and self._pods[uid][0].settled for uid in wanted):
            self._status.observed(self._records.revision)

    async def _until(self, condition: Callable[[Records], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: condition(self._records))

    def _forget_enrolment(self, pod: Pod) -> None:
        """The agent says it again when it has captured the pod's new namespace."""
        said = self._settings.names.objects / "status" / f"agent-{self._node}" / file_name(pod.key)
        if said.exists():
            said.unlink(missing_ok=True)
            self._records = self._objects.records()

    def _program(self, records: Records) -> None:
        """Routes and Services of the node, when they differ from what is there."""
        plan = self._settings.plan
        routes = node_routes(records, self._settings, self._node)
        try:
            if routes != self._routes:
                ip_batch("", routes)
                self._routes = routes
            rules = ruleset(records.of(Service), records.of(Pod), plan, plan.node(self._number))
            if rules != self._rules:
                run(["nft", "-f", "-"], rules)
                self._rules = rules
        except MeshError as error:
            say(str(error))

    async def _clear_leftovers(self, records: Records) -> None:
        """Pods that were deleted while no kubelet ran: end what is left of them."""
        known = {pod.uid for pod in records.of(Pod)}
        names = self._settings.names
        mounted = cgroup.mount_point()
        folder = mounted / names.cgroup("nodes", self._node, "pods") if mounted else None
        for group in list(folder.iterdir()) if folder and folder.is_dir() else []:
            if group.is_dir() and group.name not in known:
                await asyncio.to_thread(cgroup.remove, group)
                remove_files(names.pod_folder(group.name))
        wanted = {netns_of(pod, self._settings) for pod in records.of(Pod)}
        for netns in network.list_names():
            if netns.startswith(f"{names.prefix}-pod.") and netns not in wanted:
                network.remove(netns)

    async def _guard_supervisor(self) -> None:
        """The supervisor restarts us, and we restart it."""
        while True:
            try:
                ensure_supervisor(self._settings)
            except (MeshError, OSError) as error:
                say(f"supervisor: {error}")
            await asyncio.sleep(_SUPERVISOR_CHECK_S)


def node_routes(records: Records, settings: LabSettings, node: str) -> list[str]:
    """`ip` commands for the routes to all other nodes and to pods with an address of their own choice on them."""
    plan = settings.plan
    numbers = {record.name: plan.node_number(record.pod_cidrs) for record in records.of(Node)}
    foreign: list[tuple[IpAddress, int]] = []
    for pod in records.of(Pod):
        number = numbers.get(pod.node_name)
        if number is None or pod.node_name == node or pod.host_network:
            continue
        foreign += [(ip, number) for ip in pod.ips if ip not in plan.pods(number)]
    others = [number for name, number in numbers.items() if name != node]
    return network.peer_routes(plan, others, foreign)
