"""The node's kernel as the agent uses it: one seam over datapath, maps and namespaces, so that the order of steps can
be tested without them.

Every call is synchronous and short; those that enter a namespace are for worker threads. Holds the maps open and the
host's namespace; decides nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from ambient.agent import podns
from ambient.agent.enrol import PodTarget
from ambient.agent.journal import OlderConnection
from ambient.agent.locate import Locator
from ambient.agent.older import count_proxied
from ambient.datapath import pod_net, programs
from ambient.datapath.cgroups import mount_point
from ambient.datapath.holding import Holding
from ambient.datapath.hooks import HOOKS
from ambient.datapath.layout import PodRow
from ambient.datapath.maps import Maps
from ambient.datapath.sockets import TcpSocket
from ambient.datapath.strangers import Stranger, strangers
from ambient.errors import MeshError, Unavailable
from ambient.model.address import IpAddress, parse_endpoint
from ambient.netns import entered

POD_INTERFACE: Final = "eth0"


class Kernel(Protocol):
    captures_by: Literal["link", "rules"]
    """What of a pod's somebody may take off, in the word that repairs are counted by."""

    def open_netns(self, pod: PodTarget) -> podns.PodNetns: ...
    def absent_addresses(self, netns: podns.PodNetns, addresses: Iterable[IpAddress]) -> list[IpAddress]: ...
    def record_older(self, netns: podns.PodNetns, addresses: Iterable[IpAddress]) -> tuple[OlderConnection, ...]: ...
    def admit_clear(self, connections: Iterable[OlderConnection]) -> None: ...
    def sockets(self, netns: podns.PodNetns) -> list[TcpSocket]: ...
    def end(self, netns: podns.PodNetns, targets: Iterable[TcpSocket]) -> list[TcpSocket]: ...
    def proxied(self, netns: podns.PodNetns) -> int: ...
    def host_ifindex(self, netns: podns.PodNetns, pod: PodTarget) -> int: ...
    def rows(self) -> Mapping[IpAddress, PodRow]: ...
    def row(self, ip: IpAddress) -> PodRow | None: ...
    def put_rows(self, uid: str, rows: Mapping[IpAddress, PodRow]) -> None: ...
    def delete_row(self, ip: IpAddress) -> None: ...
    def observe(self, netns: podns.PodNetns) -> Mapping[str, Any]: ...
    def prepare(self, netns: podns.PodNetns) -> None: ...
    def restore(self, netns: podns.PodNetns, undo: Mapping[str, Any]) -> None: ...
    def attach_pod(self, netns: podns.PodNetns, uid: str) -> None: ...
    def attach_host(self, ifindex: int, uid: str) -> None: ...
    def attached(self) -> Mapping[str, bool]: ...
    def detach(self, uid: str) -> None: ...
    def strangers(self, netns: podns.PodNetns) -> tuple[Stranger, ...]: ...
    def attach_node(self) -> bool: ...
    def mend(self) -> Mended | None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Mended:
    """What of the node's, not of a pod's, was put back: in a word for the count, and in words."""

    what: str
    words: str


class PodSpaces:
    """Pods' network namespaces, however they are captured. `veth` is "auto" (found through the pod's eth0) or a
    template of the host-side name."""

    def __init__(self, locator: Locator, veth: str) -> None:
        self._locator = locator
        self._veth = veth
        self._host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self._host)

    def open_netns(self, pod: PodTarget) -> podns.PodNetns:
        return self._locator.open(pod.uid, pod.namespace, pod.name)

    def absent_addresses(self, netns: podns.PodNetns, addresses: Iterable[IpAddress]) -> list[IpAddress]:
        return podns.absent_addresses(netns.fd, addresses)

    def record_older(self, netns: podns.PodNetns, addresses: Iterable[IpAddress]) -> tuple[OlderConnection, ...]:
        return podns.record_older(netns.fd, addresses)

    def sockets(self, netns: podns.PodNetns) -> list[TcpSocket]:
        return podns.sockets(netns.fd)

    def end(self, netns: podns.PodNetns, targets: Iterable[TcpSocket]) -> list[TcpSocket]:
        return podns.end(netns.fd, targets)

    def proxied(self, netns: podns.PodNetns) -> int:
        return count_proxied(podns.sockets(netns.fd))

    def host_ifindex(self, netns: podns.PodNetns, pod: PodTarget) -> int:
        if self._veth == "auto":
            return pod_net.peer_ifindex(netns.fd, POD_INTERFACE, host=self._host)
        name = self._veth.format(namespace=pod.namespace, name=pod.name, uid=pod.uid)
        with entered(self._host):
            try:
                return socket.if_nametoindex(name)
            except OSError as error:
                raise Unavailable("host side of the pod's veth", name, error.strerror or str(error)) from None

    def observe(self, netns: podns.PodNetns) -> Mapping[str, Any]:
        return pod_net.observe(netns.fd).as_json()

    def prepare(self, netns: podns.PodNetns) -> None:
        pod_net.prepare(netns.fd)

    def restore(self, netns: podns.PodNetns, undo: Mapping[str, Any]) -> None:
        pod_net.restore(netns.fd, pod_net.PodNet.from_json(undo))


class NodeKernel(PodSpaces):
    """With programs. `group` is the control group of everything on the node (None: the whole machine is the node);
    `via`: how programs come onto interfaces."""

    captures_by: Literal["link", "rules"] = "link"

    def __init__(
        self,
        bpffs: Path,
        tables: Maps,
        locator: Locator,
        veth: str,
        group: Path | None = None,
        via: programs.Via = "tcx",
    ) -> None:
        super().__init__(locator, veth)
        self._group = group
        self._bpffs = bpffs
        self._tables = tables
        self._via = via
        self._holding = Holding(bpffs)

    def close(self) -> None:
        """What was unpinned meanwhile is pinned again first: without us the pins alone keep the pods captured."""
        super().close()
        with suppress(MeshError, OSError):
            self._holding.restore()
        self._holding.close()

    def mend(self) -> Mended | None:
        """Pin again what somebody unpinned."""
        count = len(self._holding.restore())
        return (
            Mended("pin", f"somebody unpinned {count} of our maps, programs and links: pinned again") if count else None
        )

    def admit_clear(self, connections: Iterable[OlderConnection]) -> None:
        """These may go past ztunnel; otherwise their data would raise the alarm."""
        for one in connections:
            self._tables.clear.admit(parse_endpoint(one.local), parse_endpoint(one.remote))

    def rows(self) -> Mapping[IpAddress, PodRow]:
        return self._tables.pods.items()

    def row(self, ip: IpAddress) -> PodRow | None:
        return self._tables.pods.get(ip)

    def put_rows(self, uid: str, rows: Mapping[IpAddress, PodRow]) -> None:
        for ip, row in rows.items():
            self._tables.pods.put(ip, row)

    def delete_row(self, ip: IpAddress) -> None:
        self._tables.pods.delete(ip)

    def attach_pod(self, netns: podns.PodNetns, uid: str) -> None:
        self._holding.restore()
        programs.attach_pod(self._bpffs, netns.fd, uid, POD_INTERFACE, self._via)
        self._holding.take(uid)

    def attach_host(self, ifindex: int, uid: str) -> None:
        with entered(self._host):
            name = socket.if_indextoname(ifindex)
        self._holding.restore()
        programs.attach_host(self._bpffs, self._host, uid, name, self._via)
        self._holding.take(uid)

    def attached(self) -> Mapping[str, bool]:
        """Pods that have pins; True when every program of theirs is attached."""
        wanted = {hook.program for hook in HOOKS}
        return {
            uid: {a.program for a in found if a.alive} == wanted
            for uid, found in programs.attached(self._bpffs).items()
        }

    def detach(self, uid: str) -> None:
        self._holding.restore()
        programs.detach_pod(self._bpffs, uid)
        self._holding.release(uid)

    def attach_node(self) -> bool:
        """Have the node's own programs in place; True when one was missing. Raises Unavailable without cgroup v2."""
        root = self._group or mount_point()
        if root is None:
            raise Unavailable("sockets of the node", "cgroup v2", "is not mounted")
        missing = programs.attach_node(self._bpffs, root)
        if missing:
            self._holding.take_node()
        return missing

    def strangers(self, netns: podns.PodNetns) -> tuple[Stranger, ...]:
        """Programs of others on the pod's interface."""
        return strangers(self._bpffs, netns.fd, POD_INTERFACE)
