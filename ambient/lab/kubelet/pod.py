"""One pod on its node: network first, then enrolment, then containers; at the end everything in reverse.

A mesh pod's processes start only when the agent says that the pod is captured, so none ever talks past the mesh.
Everything is redone safely after a kubelet was killed at any point: what is finished is marked, the rest replaced.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.errors import MeshError
from ambient.kube.objects import Condition, Container, Pod, Records
from ambient.kube.status import StatusWriter
from ambient.lab import cgroup, launch, network, volumes
from ambient.lab.kubelet.container import ContainerRunner, ContainerState, Work
from ambient.lab.kubelet.names import DOMAIN
from ambient.lab.mesh import is_enrolled, wants_mesh
from ambient.lab.names import NETNS_DIR
from ambient.lab.settings import LabSettings, read_json, write_atomically

_RETRY_S: Final = 1.0
_LET_GO_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Host:
    """What a pod needs of its kubelet. `until` waits for a snapshot that satisfies the condition.

    `forget_enrolment` takes back what the agent said about the pod.
    """

    settings: LabSettings
    node: str
    number: int
    status: StatusWriter
    until: Callable[[Callable[[Records], bool]], Awaitable[None]]
    settled: Callable[[], None]
    forget_enrolment: Callable[[Pod], None]


def resolv_conf(pod: Pod, settings: LabSettings) -> str:
    """The resolver configuration Kubernetes gives a pod with dnsPolicy ClusterFirst."""
    dns = settings.plan.dns
    server = dns.v4 if any(ip.version == 4 for ip in pod.ips) else dns.v6
    search = " ".join((f"{pod.namespace}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN))
    return f"search {search}\nnameserver {server}\noptions ndots:5\n"


def hosts(pod: Pod) -> str:
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{ip} {pod.hostname or pod.name}" for ip in pod.ips]
    return "\n".join(lines) + "\n"


def netns_of(pod: Pod, settings: LabSettings) -> str:
    """The name of the network namespace the pod lives in."""
    if pod.host_network:
        return settings.names.node(pod.node_name)
    return settings.names.pod(pod.namespace, pod.name)


def place_of(pod: Pod, container: Container, settings: LabSettings) -> launch.Place:
    """Where the container's processes run. Raises InvalidInput, or KernelError without cgroup v2."""
    return launch.Place(
        cgroup.place(f"{settings.names.pod_cgroup(pod.node_name, pod.uid)}/{container.name}"),
        netns_of(pod, settings),
        settings.names.pod_folder(pod.uid),
        pod.node_name if pod.host_network else pod.hostname or pod.name,
        container.working_dir or "/",
        launch.confinement(pod, container.name),
        volumes.mounts(pod, container.name, settings.names.pod_folder(pod.uid)),
    )


def last_phase(states: Collection[ContainerState]) -> str:
    """Of a pod that is over: "Succeeded" only if every container is known to have ended by itself, with 0."""
    return "Succeeded" if states and all(one.ended and one.exit_code == 0 for one in states) else "Failed"


class PodRunner:
    """Runs a pod until `end()` was called and everything of it is gone."""

    def __init__(self, pod: Pod, host: Host) -> None:
        self.pod = pod
        self.settled = False
        self._host = host
        self._runners: dict[str, ContainerRunner] = {}
        self._network = False
        self._waiting = ""
        self._ending = asyncio.Event()
        self._names = host.settings.names
        self._folder = self._names.pod_folder(pod.uid)

    def end(self) -> None:
        """Terminate the pod; `run()` returns when that is done."""
        self._ending.set()

    async def run(self) -> None:
        if self._ending.is_set():
            await self._terminate()
            return
        life = asyncio.create_task(self._live())
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait({life, ending}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                life.result()
            await ending
        finally:
            ending.cancel()
            life.cancel()
            await asyncio.gather(life, ending, return_exceptions=True)
        await self._terminate()

    async def _live(self) -> None:
        self._report()
        while True:
            try:
                self._make_network()
                break
            except (MeshError, OSError) as error:
                self._wait_reason(f"no network: {error}")
                self._settle()
                await asyncio.sleep(_RETRY_S)
        if not (self._folder / "started").exists():
            await self._fill_volumes()
            await self._until_enrolled()
            write_atomically(self._folder / "started", "")
        self._wait_reason("")
        async with asyncio.TaskGroup() as group:
            for container in self.pod.containers:
                runner = ContainerRunner(self._work(container), self._report)
                self._runners[container.name] = runner
                group.create_task(runner.run())
            await asyncio.sleep(0)  # so that every container had its first start before we say so
            self._settle()

    def _make_network(self) -> None:
        pod, names = self.pod, self._names
        host, netns, marker = self._host, netns_of(pod, self._host.settings), self._folder / "network.json"
        if not pod.host_network:
            # Not in a thread: being cancelled in the middle would leave one at work on what is then removed.
            if (read_json(marker) or {}).get("inode") != network.inode(netns) or not network.exists(netns):
                # A new namespace is not captured, whatever was said about an older one of this pod. One that is
                # ours is never replaced: the agent may have captured it already.
                (self._folder / "started").unlink(missing_ok=True)
                host.forget_enrolment(pod)
                network.make_pod_netns(netns)
                write_atomically(marker, f'{{"inode": {network.inode(netns)}}}')
            network.wire_pod(names, host.settings.plan, host.node, host.number, netns, pod.uid, pod.ips)
        write_atomically(self._folder / "resolv.conf", resolv_conf(pod, host.settings))
        write_atomically(self._folder / "hosts", hosts(pod))
        self._network = True
        self._report()

    async def _fill_volumes(self) -> None:
        """The files of the pod's volumes, once their ConfigMaps are there."""

        def complete(records: Records) -> bool:
            absent = volumes.missing(self.pod, records)
            if absent:
                self._wait_reason(f"waits for ConfigMap {', '.join(absent)}")
                self._settle()
                return False
            volumes.write(self.pod, records, self._folder, self._names.credentials)
            return True

        await self._host.until(complete)

    async def _until_enrolled(self) -> None:
        """Until the agent captures the pod, or it no longer shall be in the mesh."""
        if not self._host.settings.mesh:
            return

        def may_start(records: Records) -> bool:
            now = records.find(Pod, self.pod.namespace, self.pod.name)
            return now is None or not wants_mesh(now, records) or is_enrolled(now)

        self._wait_reason("waits until the agent has enrolled it")
        await self._host.until(may_start)

    def _work(self, container: Container) -> Work:
        pod, settings = self.pod, self._host.settings
        place = place_of(pod, container, settings)
        env = launch.environment(pod, container)
        return Work(
            container=container,
            argv=launch.in_pod(place, launch.command(container, env)),
            env=env,
            cgroup=place.cgroup,
            log=self._names.pod_log(pod.namespace, pod.name, container.name),
            mark=self._folder / f"{container.name}.json",
            ip=pod.ips[0] if pod.ips else None,
            restart_policy=pod.restart_policy,
            grace_s=pod.grace_s,
        )

    def _settle(self) -> None:
        self.settled = True
        self._host.settled()

    def _wait_reason(self, reason: str) -> None:
        self._waiting = reason
        self._report()

    def _report(self) -> None:
        """Phase, readiness and container states into the status."""
        if not self._runners and (self._folder / "started").exists():
            return  # its containers run; a new kubelet is about to find out how they are
        states = {name: runner.state for name, runner in self._runners.items()}
        ended = bool(states) and all(state.ended for state in states.values())
        phase = "Running" if states else "Pending"
        if ended:
            phase = last_phase(states.values())
        ready = phase == "Running" and all(state.ready for state in states.values())
        status, pod = self._host.status, self.pod
        status.conditions(
            pod,
            [
                Condition("PodReadyToStartContainers", str(self._network)),
                Condition("ContainersReady", str(ready)),
                Condition("Ready", str(ready), message=self._waiting),
            ],
        )
        status.set(
            pod,
            phase=phase,
            ready=ready,
            message=self._waiting or None,
            containerStatuses=[state.raw(name) for name, state in states.items()],
        )

    async def _terminate(self) -> None:
        """SIGTERM for each container, the grace period, SIGKILL; then the network and what is on disk."""
        group = self._group()
        if group is not None:
            # What a container's first process has started is that one's to end, and ends with it.
            heads = cgroup.signal_heads(group, signal.SIGTERM)
            await asyncio.to_thread(cgroup.wait_gone, group, heads, self.pod.grace_s)
            await asyncio.to_thread(cgroup.remove, group)
        await self._until_let_go()
        if not self.pod.host_network:
            netns = netns_of(self.pod, self._host.settings)
            if (NETNS_DIR / netns).exists():
                await asyncio.to_thread(network.remove_pod, self._names, self._host.node, netns, self.pod.uid)
        remove_files(self._folder)

    async def _until_let_go(self) -> None:
        """Its network is there until the agent has ended what goes through it: else peers would take tunnels to the pod
        for open, and use them for the next pod of its address. Runtimes tell CNI plugins for that."""
        if not self._host.settings.mesh:
            return
        states = [runner.state for runner in self._runners.values()]
        self._host.status.set(self.pod, phase=last_phase(states), ready=False)

        def let_go(records: Records) -> bool:
            now = records.find(Pod, self.pod.namespace, self.pod.name)
            return now is None or now.uid != self.pod.uid or not is_enrolled(now)

        try:
            async with asyncio.timeout(_LET_GO_S):
                await self._host.until(let_go)
        except TimeoutError:
            pod = self.pod
            say(f"pod {pod.namespace}/{pod.name}: the agent has not let it go in {_LET_GO_S:g} s; it goes all the same")

    def _group(self) -> Path | None:
        mounted = cgroup.mount_point()
        if mounted is None:
            return None
        return mounted / self._names.pod_cgroup(self._host.node, self.pod.uid)


def say(text: str) -> None:
    """To the kubelet's log."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def remove_files(folder: Path) -> None:
    """A folder and its files; nothing happens when it is not there."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
