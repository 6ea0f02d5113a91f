"""The pods of this node: their listeners, which workers serve them, and the policy each has been told.

The node agent adds and removes pods; a pod is served when every worker that is there says so. Listeners are bound
once and handed to every worker that comes later; a director that was restarted takes them back from a worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

from ambient.errors import InvalidInput, MeshError
from ztunnel.director import itself
from ztunnel.director.policies import PodInfo
from ztunnel.director.shares import NO_ROW
from ztunnel.director.workers import Crew, Worker
from ztunnel.inpod.listeners import Listeners, netns_inode
from ztunnel.ipc.messages import AskListeners, PodDown, PodListeners, PodPolicy, PodReady, PodRow, PodUp, PodUpdate

_log = logging.getLogger("pods")


@dataclass(slots=True)
class LocalPod:
    """One pod; `listeners` None while they could not be bound (`error` says why)."""

    info: PodInfo
    netns: int
    inode: int
    identity: str
    policy: PodPolicy
    listeners: Listeners | None = None
    error: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self) -> None:
        """Let go of the namespace and the sockets."""
        if self.listeners is not None:
            self.listeners.close()
        elif self.netns >= 0:
            os.close(self.netns)
        self.listeners, self.netns = None, -1


@dataclass(frozen=True, slots=True)
class Rules:
    """What the pods need from the rest of the director.

    `bind(netns)` -> listeners (owning netns); `adopt(fds)` -> listeners out of a worker; both raise MeshError.
    `settled()`: discovery has told something, so that policies are worth sending.
    """

    bind: Callable[[int], Listeners]
    adopt: Callable[[list[int]], Listeners]
    identity: Callable[[PodInfo], str]
    policy: Callable[[PodInfo], PodPolicy]
    settled: Callable[[], bool]
    dns: bool
    row: Callable[[str], int] = lambda _uid: NO_ROW
    """The pod's row in the workers' ledger."""
    bind_own: Callable[[int], Listeners] | None = None
    """As `bind`, for our own pod, where nothing is captured."""
    ready_timeout_s: float = 4.0


class Pods:
    """`started` and `stopped` are told about each pod that begins or ceases to be served (metrics)."""

    def __init__(
        self, crew: Crew, rules: Rules, *, started: Callable[[], None], stopped: Callable[[str], None]
    ) -> None:
        self._crew = crew
        self._rules = rules
        self._started = started
        self._stopped = stopped
        self._pods: dict[str, LocalPod] = {}

    def get(self, uid: str) -> PodInfo | None:
        pod = self._pods.get(uid)
        return pod.info if pod else None

    def infos(self) -> list[PodInfo]:
        """The node's pods, without our own."""
        return [pod.info for pod in self._pods.values() if pod.info.uid != itself.UID]

    def served(self) -> set[str]:
        """Uids that are served or that a worker still serves from before our time, without our own."""
        claimed = {uid for worker in self._crew.everyone() for uid in worker.pods}
        return (self._pods.keys() | claimed) - {itself.UID}

    def identities(self) -> set[str]:
        """Identities of every pod here."""
        return {pod.identity for pod in self._pods.values()}

    def up(self, uid: str) -> bool:
        """Listeners are there and every live worker serves it."""
        pod = self._pods.get(uid)
        return pod is not None and pod.listeners is not None and self._trouble(uid) == ""

    def pending(self) -> list[str]:
        """Pods that are not served, in the order they came."""
        return [uid for uid in self._pods if not self.up(uid)]

    # --- the node agent's side

    async def add(self, info: PodInfo, netns: int) -> str:
        """Serve this pod (owns `netns` from here on); "" when every worker does, else why not (it stays pending)."""
        try:
            inode = netns_inode(netns)
        except InvalidInput as error:
            os.close(netns)
            return str(error)
        pod = self._pods.get(info.uid)
        if pod is not None and pod.inode == inode and pod.info == info:
            os.close(netns)
        elif pod is not None and pod.inode == inode:
            # A restarted director learns the names only now; the sockets are the same.
            os.close(netns)
            pod.info = info
            self._reconsider(pod)
        else:
            if pod is not None:
                pod.close()
                for worker in self._crew:
                    worker.pods.pop(info.uid, None)
            rules = self._rules
            pod = LocalPod(info, netns, inode, rules.identity(info), rules.policy(info))
            self._pods[info.uid] = pod
            if info.uid != itself.UID:
                self._started()
        return await self._serve(pod)

    async def retry(self) -> list[str]:
        """Try every pending pod again; returns those that are served now."""
        waiting = [self._pods[uid] for uid in self.pending()]
        return [pod.info.uid for pod in waiting if not await self._serve(pod)]

    def remove(self, uid: str) -> None:
        """Let go of a pod; one that only a worker remembers goes there, unknown ones are no error."""
        pod = self._pods.pop(uid, None)
        for worker in self._crew.everyone():
            if worker.pods.pop(uid, None) is not None or pod is not None:
                worker.send(PodDown(uid=uid))
        if pod is not None:
            pod.close()
            pod.changed.set()
            self._stopped(uid)

    def listening(self) -> list[tuple[PodListeners, tuple[int, ...]]]:
        """Every pod with its sockets, for another ztunnel, which has a pod of its own; the descriptors stay ours."""
        return [
            (
                PodListeners(
                    uid=uid,
                    name=pod.info.name,
                    namespace=pod.info.namespace,
                    service_account=pod.info.service_account,
                    identity=pod.identity,
                    dns=self._rules.dns,
                ),
                pod.listeners.fds,
            )
            for uid, pod in self._pods.items()
            if pod.listeners is not None and uid != itself.UID
        ]

    def refuse_new(self, kept: Container[str] = ()) -> bool:
        """Whoever dials from now on is left to the next ztunnel; what has begun still comes in. Not so where somebody
        else accepts from the sockets (`kept`). False: that is everywhere."""
        others = self._listeners_but(kept)
        for listeners in others:
            listeners.refuse_new()
        return bool(others)

    def stop_listening(self, kept: Container[str] = ()) -> None:
        """Take no new connections anywhere; open ones are the workers' affair."""
        for listeners in self._listeners_but(kept):
            listeners.stop()

    def _listeners_but(self, kept: Container[str]) -> list[Listeners]:
        return [pod.listeners for uid, pod in self._pods.items() if pod.listeners is not None and uid not in kept]

    def close(self) -> None:
        for pod in self._pods.values():
            pod.close()

    # --- the workers' side

    def worker_joined(self, worker: Worker) -> None:
        """Hand over everything; ask a worker that outlived the last director for the sockets it holds."""
        for uid, pod in self._pods.items():
            if pod.listeners is None:
                continue
            if uid in worker.claims and worker.namespaces.get(uid, pod.inode) == pod.inode:
                worker.send(PodRow(uid=uid, row=self._rules.row(uid)))
                self._update(pod, [worker])
            else:
                # Also where it serves a namespace that the pod had while there was no director.
                self._offer(pod, worker)
        for uid in worker.claims - self._pods.keys():
            worker.send(AskListeners(uid=uid))

    def worker_left(self) -> None:
        for pod in self._pods.values():
            pod.changed.set()

    def worker_ready(self, worker: Worker, message: PodReady) -> None:
        if message.uid in self._pods:
            worker.pods[message.uid] = message.error
            self._pods[message.uid].changed.set()

    def worker_gave(self, worker: Worker | None, message: PodListeners, fds: list[int]) -> bool:
        """Sockets from a worker's hands (None: another ztunnel's): of a pod we do not have yet (or could not bind) they
        are taken over. False: they are not."""
        pod = self._pods.get(message.uid)
        if not fds or not message.name or (pod is not None and pod.listeners is not None):
            _close(fds)
            return False
        try:
            listeners = self._rules.adopt(fds)
        except MeshError as error:
            _log.warning("pod %s: %s", message.uid, error)
            _close(fds)
            return False
        if pod is not None:
            pod.close()
        info = PodInfo(message.uid, message.name, message.namespace, message.service_account)
        taken = LocalPod(
            info,
            listeners.fds[0],
            listeners.inode,
            message.identity or self._rules.identity(info),
            PodPolicy(),
            listeners,
        )
        self._pods[message.uid] = taken
        if self._rules.settled():
            taken.policy = self._rules.policy(info)
        self._started()
        for other in self._crew:
            if other is worker or message.uid in other.claims:
                other.send(PodRow(uid=message.uid, row=self._rules.row(message.uid)))
                self._update(taken, [other])
            else:
                self._offer(taken, other)
        return True

    # --- discovery's side

    def discovery_changed(self) -> None:
        """Recompute every pod; workers hear of those whose policy or identity differs from what they have."""
        for pod in self._pods.values():
            self._reconsider(pod)

    def _reconsider(self, pod: LocalPod) -> None:
        if not self._rules.settled():
            return
        identity, policy = self._rules.identity(pod.info), self._rules.policy(pod.info)
        moved, pod.identity = identity != pod.identity, identity
        same, pod.policy = policy == pod.policy, policy
        if moved and pod.listeners is not None:
            for worker in self._crew:
                self._offer(pod, worker)
        elif not same:
            self._update(pod, self._crew.everyone())

    def _update(self, pod: LocalPod, workers: Iterable[Worker]) -> None:
        # Before discovery has said anything a worker that serves the pod knows more than we do. After that also those
        # hear of it that have not answered to their PodUp yet: the policy in it is the old one.
        if self._rules.settled():
            for worker in workers:
                worker.send(PodUpdate(uid=pod.info.uid, policy=pod.policy))

    # --- serving

    async def _serve(self, pod: LocalPod) -> str:
        if pod.listeners is None:
            try:
                own = self._rules.bind_own if pod.info.uid == itself.UID else None
                pod.listeners = (own or self._rules.bind)(pod.netns)
            except MeshError as error:
                pod.error = str(error)
                _log.warning("pod %s/%s: %s", pod.info.namespace, pod.info.name, error)
                return pod.error
        for worker in self._crew:
            if worker.pods.get(pod.info.uid) != "":
                self._offer(pod, worker)
        pod.error = await self._settled(pod)
        return pod.error

    def _offer(self, pod: LocalPod, worker: Worker) -> None:
        if pod.listeners is None:
            return
        info = pod.info
        worker.pods.pop(info.uid, None)
        message = PodUp(
            uid=info.uid,
            name=info.name,
            namespace=info.namespace,
            service_account=info.service_account,
            identity=pod.identity,
            policy=pod.policy,
            dns=self._rules.dns,
            row=self._rules.row(info.uid),
            own=info.uid == itself.UID,
        )
        worker.send(message, pod.listeners.fds)

    async def _settled(self, pod: LocalPod) -> str:
        """Wait for every live worker's word about the pod; "" or why it is not served."""
        uid = pod.info.uid
        try:
            async with asyncio.timeout(self._rules.ready_timeout_s):
                while (trouble := self._trouble(uid)) is None:
                    pod.changed.clear()
                    await pod.changed.wait()
        except TimeoutError:
            return "the workers did not answer in time" if list(self._crew) else "no worker is running"
        return trouble if self._pods.get(uid) is pod else "the pod was removed"

    def _trouble(self, uid: str) -> str | None:
        """ "" = served, text = a worker's error, None = still waiting for a worker."""
        answers = [worker.pods.get(uid) for worker in self._crew]
        if not answers or None in answers:
            return next((answer for answer in answers if answer), None)
        return next((answer for answer in answers if answer), "")


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
