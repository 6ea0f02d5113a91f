"""A node without a kernel for the agent's tests: it keeps the rules of the capture contract and complains when a step
comes out of order.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

from ambient.agent.apply import Applier
from ambient.agent.enrol import PodTarget
from ambient.agent.journal import Journal, OlderConnection
from ambient.agent.kernel import Mended
from ambient.agent.podns import PodNetns
from ambient.datapath.layout import Flag, PodRow
from ambient.datapath.sockets import TcpSocket
from ambient.datapath.strangers import Stranger
from ambient.errors import KernelError, Unavailable
from ambient.model.address import IpAddress
from ambient.zds.codec import AddWorkload

ADDRESSES = (ip_address("10.0.0.5"), ip_address("fd00::5"))


class Killed(BaseException):
    """Stands for the end of the agent's process."""


async def until(probe: Callable[[], object]) -> None:
    """Let the loop run until `probe` is true; TimeoutError after half a minute."""
    async with asyncio.timeout(30):
        while not probe():  # noqa: ASYNC110 - what is waited for is a call into a fake
            await asyncio.sleep(0.002)


def target(name: str = "web", **changes: Any) -> PodTarget:
    fields: dict[str, Any] = {
        "uid": f"uid-{name}",
        "namespace": "shop",
        "name": name,
        "service_account": "seller",
        "addresses": ADDRESSES,
    }
    return PodTarget(**{**fields, **changes})


@dataclass
class FakeKernel:
    """`fail` maps a call's name to what it raises; `namespaces` maps a pod name to the cookie of its namespace."""

    namespaces: dict[str, int] = field(default_factory=lambda: {"web": 7})
    table: dict[IpAddress, PodRow] = field(default_factory=dict)
    prepared: dict[int, str] = field(default_factory=dict)
    inside: set[str] = field(default_factory=set)
    host: set[str] = field(default_factory=set)
    older: tuple[OlderConnection, ...] = ()
    admitted: set[int] = field(default_factory=set)
    beside: tuple[Stranger, ...] = ()
    proxied_connections: int = 0
    fail: dict[str, Exception] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fail:
            raise self.fail[name]

    def open_netns(self, pod: PodTarget) -> PodNetns:
        self._call("open_netns")
        if pod.name not in self.namespaces:
            raise Unavailable("pod network namespace", pod.name, "not there")
        return PodNetns(os.open("/dev/null", os.O_RDONLY), self.namespaces[pod.name], f"/run/netns/{pod.name}")

    def absent_addresses(self, netns: PodNetns, addresses: Iterable[IpAddress]) -> list[IpAddress]:
        self._call("absent_addresses")
        return []

    def strangers(self, netns: PodNetns) -> tuple[Stranger, ...]:
        return self.beside

    def admit_clear(self, connections: Iterable[OlderConnection]) -> None:
        self.admitted |= {one.cookie for one in connections}

    def record_older(self, netns: PodNetns, addresses: Iterable[IpAddress]) -> tuple[OlderConnection, ...]:
        self._call("record_older")
        return self.older

    def sockets(self, netns: PodNetns) -> list[TcpSocket]:
        self._call("sockets")
        return []

    def end(self, netns: PodNetns, targets: Iterable[TcpSocket]) -> list[TcpSocket]:
        self._call("end")
        return list(targets)

    def proxied(self, netns: PodNetns) -> int:
        self._call("proxied")
        return self.proxied_connections

    def host_ifindex(self, netns: PodNetns, pod: PodTarget) -> int:
        self._call("host_ifindex")
        return 42

    def rows(self) -> Mapping[IpAddress, PodRow]:
        return dict(self.table)

    def row(self, ip: IpAddress) -> PodRow | None:
        return self.table.get(ip)

    def put_rows(self, uid: str, rows: Mapping[IpAddress, PodRow]) -> None:
        self._call("put_rows")
        self.table |= rows

    captures_by: Literal["link", "rules"] = "link"

    def attach_node(self) -> bool:
        return False

    def mend(self) -> Mended | None:
        return None

    def close(self) -> None:
        self._call("close")

    def delete_row(self, ip: IpAddress) -> None:
        self._call("delete_row")
        del self.table[ip]

    def observe(self, netns: PodNetns) -> Mapping[str, Any]:
        self._call("observe")
        return {"accept_local": "1" if netns.cookie in self.prepared else "0"}

    def prepare(self, netns: PodNetns) -> None:
        self._call("prepare")
        self.prepared[netns.cookie] = "1"

    def restore(self, netns: PodNetns, undo: Mapping[str, Any]) -> None:
        self._call("restore")
        assert undo == {"accept_local": "0"}, "the pod's own value was lost"
        self.prepared.pop(netns.cookie, None)

    def attach_pod(self, netns: PodNetns, uid: str) -> None:
        self._call("attach_pod")
        if not set(ADDRESSES) <= self.table.keys():
            raise KernelError("attached before its rows: traffic would be refused")
        if netns.cookie not in self.prepared:
            raise KernelError("attached before its routes")
        self.inside.add(uid)

    def attach_host(self, ifindex: int, uid: str) -> None:
        self._call("attach_host")
        assert ifindex == 42
        self.host.add(uid)

    def attached(self) -> Mapping[str, bool]:
        return {uid: uid in self.inside and uid in self.host for uid in self.inside | self.host}

    def detach(self, uid: str) -> None:
        self._call("detach")
        self.inside.discard(uid)
        self.host.discard(uid)

    @property
    def captures(self) -> bool:
        return bool(self.table) and all(Flag.CAPTURE_OUT in row.flags for row in self.table.values())

    @property
    def untouched(self) -> bool:
        return not (self.table or self.prepared or self.inside or self.host)


@dataclass
class FakeProxies:
    """Serves every pod at once, unless `silent`."""

    silent: bool = False
    pods: dict[str, AddWorkload | None] = field(default_factory=dict)

    def add(self, pod: AddWorkload, netns_fd: int) -> None:
        os.fstat(netns_fd)
        self.pods[pod.uid] = pod

    def keep(self, uid: str) -> None:
        self.pods[uid] = None

    async def served(self, uid: str) -> None:
        if self.silent:
            await asyncio.Event().wait()

    async def remove(self, uid: str) -> None:
        self.pods.pop(uid, None)


class Node:
    """An applier over fakes; `restart` makes the next one over the same kernel and journal directory."""

    def __init__(self, directory: Path, *, checkpoint: Callable[[str, str], None] = lambda uid, where: None) -> None:
        self.directory = directory
        self.kernel = FakeKernel()
        self.said: dict[str, str | None] = {}
        self.restart(checkpoint)

    def restart(self, checkpoint: Callable[[str, str], None] = lambda uid, where: None, *, boot: str = "boot") -> None:
        self.journal = Journal(self.directory)
        self.proxies = FakeProxies()
        self.threads = ThreadPoolExecutor(1)
        self.applier = Applier(
            self.kernel,
            self.journal,
            self.proxies,
            self.said.__setitem__,
            boot=boot,
            clock=lambda: 1000.0,
            threads=self.threads,
            drain_s=30.0,
            linger_s=0.001,
            checkpoint=checkpoint,
        )

    def close(self) -> None:
        self.threads.shutdown()
        for netns in self.applier.open.values():
            netns.close()


async def nobody(_peer: object) -> None:
    """Who is told that a ztunnel has come, where that does not matter."""
