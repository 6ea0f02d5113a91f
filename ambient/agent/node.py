"""What the CNI side sees of the agent: its judgement of a pod that starts, by what it knows and by what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from ambient.agent.apply import Applier
from ambient.agent.cni import Judged
from ambient.agent.cni_request import PodName
from ambient.agent.converge import Convergence, State, Tracked
from ambient.agent.discovery import Policies
from ambient.agent.enrol import NotEnrolled, Rules, target
from ambient.agent.fresh import Fresh
from ambient.agent.report import uncertified, why
from ambient.kube.objects import Namespace, Pod, Records
from ambient.model.address import IpAddress

STATIC_POD_ANNOTATION: Final = "kubernetes.io/config.hash"
"""The uid that the kubelet and the runtime know a static pod by; the API's copy of it has another."""


class Starting:
    """`records` gives the latest objects; `replan` has the agent act on changed sandboxes; `pending` are the pods that
    no ztunnel serves yet, with what it said; `uncertified` says of (namespace, service account) that ztunnel has no
    certificate for it; `out` why pods of the node are not in the mesh."""

    def __init__(
        self,
        rules: Rules,
        fresh: Fresh,
        policies: Policies,
        convergence: Convergence,
        applier: Applier,
        records: Callable[[], Records],
        replan: Callable[[], None],
        pending: Callable[[], Mapping[str, str]],
        uncertified: Callable[[str, str], bool],
        out: Callable[[], Mapping[str, NotEnrolled]],
    ) -> None:
        self._rules = rules
        self._fresh = fresh
        self._policies = policies
        self._convergence = convergence
        self._applier = applier
        self._records = records
        self._replan = replan
        self._pending = pending
        self._uncertified = uncertified
        self._out = out
        self._read = asyncio.Event()
        self._moved = asyncio.Event()

    def note_read(self) -> None:
        """The node's objects are known."""
        self._read.set()

    def note_moved(self) -> None:
        """Objects or the state of a pod have changed."""
        self._moved.set()
        self._moved = asyncio.Event()

    # --- as `ambient.agent.cni.Node`

    async def ready(self) -> None:
        await self._read.wait()

    async def moved(self) -> None:
        await self._moved.wait()

    def judge(self, pod: PodName, addresses: tuple[IpAddress, ...]) -> Judged | None:
        records = self._records()
        return self._judged(
            pod,
            records.find(Pod, pod.namespace, pod.name),
            records.find(Namespace, "", pod.namespace),
            addresses,
        )

    async def judge_afresh(self, pod: PodName, addresses: tuple[IpAddress, ...]) -> Judged | None:
        record, namespace = await asyncio.gather(
            self._fresh.pod(pod.namespace, pod.name), self._fresh.namespace(pod.namespace)
        )
        return self._judged(pod, record, namespace, addresses)

    def plan(self) -> None:
        self._replan()

    def tracked(self, uid: str) -> Tracked | None:
        return self._convergence.tracked.get(uid)

    def why(self, uid: str) -> str:
        tracked = self.tracked(uid)
        if tracked is None and uid in self._out():
            return self._out()[uid].value
        if tracked is not None and not self.served(uid):
            return uncertified(tracked.pod.service_account)
        return why(uid, tracked, self._pending())

    def served(self, uid: str) -> bool:
        tracked = self.tracked(uid)
        if tracked is None or tracked.state is not State.ENROLLED:
            return True
        return not self._uncertified(tracked.pod.namespace, tracked.pod.service_account)

    def netns_of(self, uid: str) -> tuple[int, int] | None:
        netns = self._applier.open.get(uid)
        return None if netns is None else netns.identity()

    def _judged(
        self, name: PodName, pod: Pod | None, namespace: Namespace | None, addresses: tuple[IpAddress, ...]
    ) -> Judged | None:
        if pod is None or (name.uid and name.uid not in (pod.uid, pod.annotations.get(STATIC_POD_ANNOTATION))):
            return None
        verdict = target(
            replace(pod, ips=addresses or pod.ips),
            namespace,
            self._rules,
            policies_apply=self._policies.apply_to(pod),
        )
        return Judged(pod.uid, verdict)


def same_addresses(
    sandboxes: Mapping[str, tuple[IpAddress, ...]], pods: Mapping[str, Pod]
) -> dict[str, tuple[IpAddress, ...]]:
    """Of each pod the runtime's addresses, in the order of the pod's status once that has the same ones."""
    return {
        uid: pods[uid].ips if uid in pods and {*pods[uid].ips} == {*addresses} else addresses
        for uid, addresses in sandboxes.items()
    }
