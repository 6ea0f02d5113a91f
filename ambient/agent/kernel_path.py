"""The same-node kernel path as the agent runs it: who may, what is open, what is told; put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from typing import Protocol

from ambient.agent import direct_flows, direct_shares, same_node
from ambient.agent.converge import Tracked
from ambient.agent.direct_flows import LOOK_S, DirectFlows
from ambient.agent.direct_shares import DirectShares
from ambient.agent.direct_sockets import PodSockets
from ambient.agent.direct_telling import Telling
from ambient.agent.kernel import Kernel
from ambient.agent.podns import PodNetns
from ambient.agent.same_node import Knowledge, SameNode, every
from ambient.datapath.direct import Tuple, Way
from ambient.datapath.layout import Option
from ambient.flows.record import Flow
from ambient.model.address import IpAddress


class Config(Protocol):
    """config.h."""

    def options(self) -> Option: ...
    def set(self, option: Option, /) -> None: ...


class Direct(same_node.Tables, direct_flows.Tables, direct_shares.Tables, Protocol):
    """direct.h."""

    def ways(self) -> Mapping[Tuple, Way]: ...


class Tables(Protocol):
    """As `ambient.datapath.maps` has them."""

    @property
    def config(self) -> Config: ...
    @property
    def direct(self) -> Direct: ...


class KernelPath:
    """`tracked` are the agent's pods by uid, `namespaces` those that are open; `keep` takes flow records;
    `ready`: it is known which pods belong in the mesh."""

    def __init__(
        self,
        node: str,
        tables: Tables,
        kernel: Kernel,
        knowledge: Knowledge,
        tracked: Callable[[], Mapping[str, Tracked]],
        namespaces: Mapping[str, PodNetns],
        threads: Executor,
        keep: Callable[[list[Flow]], None],
        ready: Callable[[], bool],
    ) -> None:
        self._config = tables.config
        self._tracked = tracked
        self._namespaces = namespaces
        self._woken = asyncio.Event()
        self._telling = Telling(node, keep)
        self._same_node = SameNode(tables.direct, knowledge, self._pods, self._switch_on, self._woken.set, ready)
        self._flows = DirectFlows(
            tables.direct,
            self._same_node.judge,
            lambda: knowledge.current,
            PodSockets(kernel, self._netns_of, threads),
            self._telling,
            DirectShares(tables.direct, lambda: self._same_node.clients, self._name_of),
        )

    def adopt(self) -> None:
        """Take over from an agent before us."""
        self._same_node.adopt()

    def refresh(self) -> None:
        """Pods, policies or services have changed."""
        self._same_node.refresh()

    async def run(self) -> None:
        """Until cancelled."""
        await every(LOOK_S, self._woken, self._same_node.look, self._look)

    def shown(self) -> dict[str, int | bool]:
        """For the page of pods."""
        return {"on": self._same_node.on, "grants": self._same_node.grants, "open": self._flows.open}

    def render(self) -> str:
        """Istio's traffic metrics of these connections."""
        return self._telling.render()

    def _look(self) -> None:
        if self._same_node.on:
            self._flows.look()

    def _pods(self) -> Collection[Tracked]:
        return self._tracked().values()

    def _switch_on(self) -> None:
        options = self._config.options()
        if Option.DIRECT not in options:
            self._config.set(options | Option.DIRECT)

    def _name_of(self, ip: IpAddress) -> str:
        return next((str(one.pod) for one in self._pods() if ip in one.pod.addresses), str(ip))

    def _netns_of(self, ip: IpAddress) -> PodNetns | None:
        uid = next((uid for uid, one in self._tracked().items() if ip in one.pod.addresses), "")
        return self._namespaces.get(uid)
