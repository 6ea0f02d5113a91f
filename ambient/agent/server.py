"""The agent put together: objects and policies come in, pods go in and out, ztunnels are served, the kernel is watched.

The only module that knows all parts. Nothing is undone when it stops: programs, rows and routes stay, the next agent
finds them by journal and pins.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from ambient.agent import cni
from ambient.agent import custody as custody_server
from ambient.agent.apply import Applier
from ambient.agent.captures import Captures, opened
from ambient.agent.cni import PodStarts
from ambient.agent.converge import Convergence
from ambient.agent.custody import Custody
from ambient.agent.discovery import Policies
from ambient.agent.enrol import REDIRECTION_ANNOTATION, Enrol, Gone, NotEnrolled, Rules, plan
from ambient.agent.fresh import FromApi, FromFolder
from ambient.agent.host import Kubelet, installation, locator, node_root
from ambient.agent.http import listen
from ambient.agent.journal import Journal
from ambient.agent.kernel_path import KernelPath
from ambient.agent.kernel_policy import KernelPolicy, Pods, pods_of
from ambient.agent.metrics import Tally
from ambient.agent.node import Starting, same_addresses
from ambient.agent.owner_changes import OwnerChanges
from ambient.agent.owners import Owners
from ambient.agent.pages import Pages
from ambient.agent.report import Report, find_problems
from ambient.agent.sandboxes import Sandboxes
from ambient.agent.settings import AgentSettings
from ambient.agent.talks import Talks
from ambient.agent.upkeep import Upkeep
from ambient.agent.watch_flows import Flows
from ambient.agent.watch_older import OlderConnections
from ambient.agent.watch_packets import Packets
from ambient.agent.ztunnels import Ztunnels
from ambient.datapath import cgroups
from ambient.datapath.variant import RULES
from ambient.errors import KernelError, MeshError, Unavailable
from ambient.kube.api.client import ApiClient
from ambient.kube.records import Namespace, Pod, Records
from ambient.kube.source import KUBERNETES, open_source
from ambient.waking import woken
from ambient.zds.packet import Peer

LOOK_S: Final = 1.0
TELL_S: Final = 1.0

log = logging.getLogger("ambient.agent")


@contextlib.contextmanager
def only_one(state: Path) -> Iterator[None]:
    """Hold the node's agent lock; raises Unavailable when another agent has it."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable("agent lock", str(state), "another agent runs with this state directory") from None
        yield
    finally:
        os.close(fd)


class Agent:
    """One node's agent. `run` until cancelled; `checkpoint` is for tests that end it in the middle of a step."""

    def __init__(self, settings: AgentSettings, captures: Captures, *, checkpoint: object = None) -> None:
        self._settings = settings
        tables, programs = captures.tables, captures.variant.via != RULES
        self._source = open_source(settings.objects, os.environ, node=settings.node)
        self._status = self._source.status(f"agent-{settings.node}")
        self._rules = Rules(
            node=settings.node,
            mesh_namespace=settings.mesh_namespace,
            excluded_namespaces=settings.excluded_namespaces,
            dns_capture=settings.dns_capture,
            same_node=settings.same_node,
        )
        self._judges = programs and settings.kernel_policy
        # The program that counts also names ztunnel's listeners, where that is how they are found.
        self._counts = programs and (settings.flows or captures.variant.listeners == "named")
        self._records = Records()
        self._pods: dict[str, Pod] = {}
        self._out: dict[str, NotEnrolled] = {}
        self._planned = asyncio.Event()
        self._wake = asyncio.Event()
        self._look = asyncio.Event()
        self._tally = Tally()
        self._threads = ThreadPoolExecutor(1, "steps")
        self._lookers = ThreadPoolExecutor(1, "sockets")
        self._journal = Journal(settings.state / "pods")
        self._sandboxes = Sandboxes(settings.state / "sandboxes")
        self._kernel = captures.kernel(locator(settings, self._sandboxes))
        mount = cgroups.mount_point()
        owners = Owners(captures.owners, mount)
        self._owners = OwnerChanges(owners, Kubelet(settings.kubelet_cgroup, owners, mount))
        self._ztunnels = Ztunnels(self._ztunnel_came, self._ztunnel_went)
        self._custody = Custody(time.time, came=lambda: self._starting.note_moved())
        self._policies = Policies(
            settings.node,
            settings.cluster,
            settings.mesh_namespace,
            self._policies_changed,
            network=settings.network,
            only_waypoints=settings.waypoints == "enforced",
        )
        self._applier = Applier(
            self._kernel,
            self._journal,
            self._ztunnels,
            self._announce,
            boot=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            clock=time.time,
            threads=self._threads,
            drain_s=settings.drain_s,
            linger_s=settings.linger_s,
            **({"checkpoint": checkpoint} if callable(checkpoint) else {}),
        )
        self._convergence = Convergence(self._applier, self._pod_moved)
        self._upkeep = Upkeep(self._kernel, self._journal, self._convergence, self._tally, self._threads)
        self._api = ApiClient.open(os.environ) if settings.objects == KUBERNETES else None
        self._report = None if self._api is None else Report(self._api, settings.node, settings.taint)
        self._starting = Starting(
            self._rules,
            FromFolder(settings.objects) if self._api is None else FromApi(self._api),
            self._policies,
            self._convergence,
            self._applier,
            lambda: self._records,
            self._wake.set,
            lambda: self._ztunnels.pending,
            self._custody.lacks,
            lambda: self._out,
        )
        self._starts = PodStarts(
            self._starting, self._sandboxes, settings.passing_namespaces, node_root(settings), self._tally.cni
        )
        self._installation = installation(settings)
        self._older = OlderConnections(
            self._kernel, self._journal, self._applier.open, self._policies.judge_of, self._tally, self._lookers
        )
        self._kernel_policy = KernelPolicy(
            tables.deny, tables.shadow, tables.lease, self._policies, self._pods_for_rows, ThreadPoolExecutor(1, "rows")
        )
        self._packets = Packets(
            settings.node,
            tables.events,
            tables.counters.read,
            self._policies.workload_at,
            self._kernel_policy.denial,
        )
        self._flows = Flows(
            tables.tallies,
            self._kernel.attach_node,
            self._policies.workload_at,
            self._tally,
            self._threads,
            Talks(settings.node, self._policies.workload_at, time.time),
            self._packets.add,
        )
        self._kernel_path = KernelPath(
            settings.node,
            tables,
            self._kernel,
            self._policies,
            (lambda: self._convergence.tracked) if programs else dict,
            self._applier.open,
            self._lookers,
            self._packets.add,
            self._planned.is_set,
        )
        self._pages = Pages(
            node=settings.node,
            kernel=self._kernel,
            journal=self._journal,
            convergence=self._convergence,
            older=self._older,
            ztunnels=self._ztunnels,
            custody=self._custody,
            policies=self._policies,
            tally=self._tally,
            kernel_policy=self._kernel_policy,
            packets=self._packets,
            totals=self._flows.totals,
            kernel_path=self._kernel_path,
            counters=tables.counters.read,
            readiness=self._unready,
            out=self._not_enrolled,
            variant=captures.variant,
        )

    async def run(self) -> None:
        """Take over what is on the node, then serve until cancelled. Raises MeshError when it cannot start."""
        settings = self._settings
        settings.zds_socket.parent.mkdir(parents=True, exist_ok=True)
        pages = await listen(settings.listen, self._pages.routes())
        try:
            await self._owners.adopt()
            self._kernel_path.adopt()
            for uid, error in self._journal.unreadable.items():
                log.error("pod %s: %s; what it has on the node is taken for nobody's", uid, error)
            for entry in list(self._journal):
                self._convergence.adopt(entry.pod)
                await self._applier.resume(entry)
            if self._counts:
                await self._flows.look()  # before a ztunnel is told a pod and listens there
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._source.run())
                tasks.create_task(self._follow_objects(tasks))
                tasks.create_task(self._act())
                tasks.create_task(self._look_after_older())
                tasks.create_task(self._sweep_often())
                if self._report is not None:
                    tasks.create_task(self._tell_often(self._report))
                if self._installation is not None:
                    tasks.create_task(self._installation.keep())
                if settings.cni_socket is not None:
                    tasks.create_task(cni.serve(self._starts, settings.cni_socket))
                tasks.create_task(self._kernel_policy.run())
                tasks.create_task(self._packets.follow())
                tasks.create_task(self._kernel_path.run())
                if self._counts:
                    tasks.create_task(self._flows.follow())
                if settings.custody_socket is not None:
                    tasks.create_task(custody_server.serve(self._custody, settings.custody_socket))
                if settings.xds:
                    tasks.create_task(self._policies.follow(settings.discovery()))
        finally:
            pages.close()
            await self._convergence.close()
            self._threads.shutdown()
            self._lookers.shutdown()
            self._owners.close()
            self._custody.close()
            self._kernel.close()
            if self._api is not None:
                await self._api.close()

    # --- what comes in

    async def _follow_objects(self, tasks: asyncio.TaskGroup) -> None:
        serving = False
        async for records in self._source.changes():
            if records.revision == 0 and not records.by_key:
                continue  # nothing was ever stored here: not the same as "every pod is gone"
            self._records = records
            self._wake.set()
            if not serving:
                # ztunnel drops what its first snapshot does not name, so it may come only now.
                self._plan()
                self._convergence.resume_releases()
                tasks.create_task(self._ztunnels.serve(self._settings.zds_socket))
                serving = True

    def _refresh_kernel(self) -> None:
        self._kernel_policy.refresh()
        self._kernel_path.refresh()

    def _policies_changed(self) -> None:
        self._refresh_kernel()
        self._wake.set()
        self._look.set()

    def _pod_moved(self) -> None:
        self._starting.note_moved()
        self._refresh_kernel()
        self._wake.set()
        self._look.set()

    def _pods_for_rows(self) -> Pods:
        if not self._judges:
            return Pods()
        interfaces = {entry.pod.uid: entry.host_ifindex for entry in self._journal}
        return pods_of(self._convergence.tracked.values(), interfaces)

    async def _ztunnel_came(self, peer: Peer) -> None:
        await self._owners.admit_ztunnel(peer.pid)
        self._wake.set()

    def _ztunnel_went(self, _peer: Peer) -> None:
        self._owners.prune()

    # --- what is done about it

    async def _act(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._records.revision == 0:
                continue
            self._plan()
            if self._convergence.settled():
                self._status.observed(self._records.revision)

    def _plan(self) -> None:
        records = self._records
        self._pods = {pod.uid: pod for pod in records.of(Pod) if pod.node_name == self._settings.node}
        made = plan(
            self._pods.values(),
            {namespace.name: namespace for namespace in records.of(Namespace)},
            self._convergence.held(),
            self._rules,
            {uid: self._policies.apply_to(pod) for uid, pod in self._pods.items()},
            frozenset(refused.key for refused in records.refused if not refused.stands),
            sandboxes=same_addresses(self._sandboxes.addresses(), self._pods),
            ended=self._sandboxes.ended,
        )
        self._out = dict(made.out)
        self._planned.set()
        self._starting.note_read()
        self._convergence.act(made.actions)
        for action in made.actions:
            if isinstance(action, Enrol | Gone):
                self._look.set()
        for uid in self._pods.keys() & made.out.keys() - self._convergence.tracked.keys():
            if REDIRECTION_ANNOTATION in self._pods[uid].annotations and made.out[uid] is not NotEnrolled.UNREADABLE:
                self._announce(uid, None)  # said by an agent before us, of a sandbox before this one
        self._starting.note_moved()

    def _announce(self, uid: str, state: str | None) -> None:
        pod = self._pods.get(uid)
        if pod is not None:
            self._status.annotate(pod, {REDIRECTION_ANNOTATION: state})

    async def _look_after_older(self) -> None:
        while True:
            await woken(self._look, LOOK_S)
            self._look.clear()
            await self._older.judge()

    async def _sweep_often(self) -> None:
        await self._planned.wait()
        while True:
            try:
                await self._upkeep.sweep()
                await self._owners.look()
            except (MeshError, OSError) as error:
                log.error("sweep: %s", error)
            self._custody.forget_expired()
            self._refresh_kernel()
            self._sandboxes.keep_only({*self._pods, *self._convergence.tracked})
            self._wake.set()
            await asyncio.sleep(self._settings.sweep_s)

    async def _tell_often(self, report: Report) -> None:
        """Say what is wrong with which pod, and once nothing is wrong with the node, that pods may come."""
        await self._planned.wait()
        while True:
            tracked, pending = self._convergence.tracked, self._ztunnels.pending
            problems = find_problems(self._pods, tracked, self._out, pending, self._starting.served)
            await report.tell(problems, self._pods)
            for uid, what in self._upkeep.untold():
                if uid in self._pods:
                    await report.repaired(self._pods[uid], what)
            if not self._unready() and self._ztunnels.settled:
                await report.open_node()
            await asyncio.sleep(TELL_S)

    # --- what is shown

    def _unready(self) -> str:
        if not self._planned.is_set():
            return self._source.waiting() or "no objects were read yet"
        return self._installation.problem if self._installation is not None else ""

    def _not_enrolled(self) -> Mapping[str, tuple[str, NotEnrolled]]:
        return {
            uid: (f"{self._pods[uid].namespace}/{self._pods[uid].name}", reason)
            for uid, reason in self._out.items()
            if uid in self._pods
        }


async def serve(settings: AgentSettings, *, checkpoint: object = None) -> None:
    """Load the datapath and run the agent until cancelled; raises MeshError when it cannot start."""
    with only_one(settings.state), contextlib.ExitStack() as stack:
        captures = await asyncio.to_thread(stack.enter_context, opened(settings))
        try:
            await Agent(settings, captures, checkpoint=checkpoint).run()
        except* MeshError as group:
            raise KernelError("agent", settings.node, "; ".join(map(str, group.exceptions))) from group
