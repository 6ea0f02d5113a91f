"""The small world of `tests.support.tunnel` with real decisions: what a mesh says becomes plans, tunnels and policies.

Pods have random loopback addresses, so that their HBONE port is the real one and worlds do not meet.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

from ambient.model.address import HBONE_PORT
from ambient.model.mesh import Kind, Mesh, Value
from ambient.model.workload import TunnelProtocol, Workload
from tests.support.tunnel import TestPod, World, talk, world
from ztunnel.director.answers import Answers
from ztunnel.director.policies import PodInfo, Site, pod_policy
from ztunnel.ipc import messages as m

SITE = Site("n1", "Kubernetes", "cluster.local", "")


class Decided:
    """`mesh` is what discovery would have said; every change reaches the worker as the director would send it."""

    def __init__(self, here: World, *, registry_only: bool = False) -> None:
        self.here = here
        self.mesh = Mesh()
        self._answers = Answers(self.mesh, SITE, domain="cluster.local", registry_only=registry_only)
        self._answers.joined(os.getpid())
        self._net = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}"
        self._last = 0
        here.director.decide = self._decide

    def _decide(self, ask: m.RouteAsk) -> m.RouteAnswer:
        return self._answers.route(os.getpid(), _info(ask.uid), ask)

    async def pod(self, name: str, **changes: Any) -> Workload:
        """A pod that is served here, and the workload that it is; tell the mesh of it by `change`."""
        served = await self.here.pod(name, self.address(), hbone_port=HBONE_PORT)
        return _workload(name, served.address, **changes)

    def address(self) -> str:
        """One that nobody here has yet."""
        self._last += 1
        return f"{self._net}.{self._last}"

    def outside(self, name: str, **changes: Any) -> Workload:
        """A workload that is not served here: plain, on an address of its own."""
        return _workload(name, self.address(), **{"tunnel_protocol": TunnelProtocol.NONE, **changes})

    def change(self, *put: Value, gone: Sequence[tuple[Kind, str]] = ()) -> None:
        """What discovery says now: the worker forgets what it must and every pod gets its policy."""
        self.tell(*put, gone=gone)
        for served in self.here.pods.values():
            policy = pod_policy(self.mesh, SITE, _info(served.uid))
            self.here.director.send(m.PodUpdate(uid=served.uid, policy=policy))

    def tell(self, *put: Value, gone: Sequence[tuple[Kind, str]] = ()) -> None:
        """The same for routes alone: pods keep the policies that they have."""
        changes = self.mesh.apply(put, gone)
        self._answers.forget(changes, lambda _pid, message: self.here.director.send(message))

    async def dial(self, client: str, destination: str) -> bytes:
        """What comes back when the pod says hello to host:port; b"" when it is refused."""
        pod: TestPod = self.here.pods[client]
        host, _, port = destination.rpartition(":")
        self.here.capture(pod.outbound, host, int(port))
        return await talk(pod.outbound)


def _info(uid: str) -> PodInfo:
    name = uid.removeprefix("uid-")
    return PodInfo(uid, name, "test", name)


def _workload(name: str, address: str, **changes: Any) -> Workload:
    fields: dict[str, Any] = {"tunnel_protocol": TunnelProtocol.HBONE, **changes}
    return Workload(
        uid=f"Kubernetes//Pod/test/{name}",
        name=name,
        namespace="test",
        service_account=name,
        addresses=(ip_address(address),),
        node="n1",
        workload_name=name,
        **fields,
    )


@asynccontextmanager
async def decided(*, registry_only: bool = False) -> AsyncIterator[Decided]:
    async with world() as here:
        yield Decided(here, registry_only=registry_only)
