"""A node, two pods and an outside as network namespaces, with cgroups, for the capture tests. Needs root.

One process plays everybody: a socket belongs to the namespace and the cgroup that the process was in when it was made,
so `World.socket` enters both, makes it and comes back. Waiting is done in the kernel, but at the end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from ambient.datapath import cgroups
from ambient.model.address import IpAddress
from ambient.netns import entered
from tests.support.waiting import until

IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
GIVE_UP = 0.3
"""Seconds after which a connection attempt counts as refused by silence (a SYN is repeated after one second)."""


OWNERS = ("app", "ztunnel", "kubelet")
"""Whose sockets they are: each a cgroup below the one of the world's node."""


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace. `interface` is its own end of the veth, `host_interface` the node's."""

    name: str
    netns: int
    addresses: dict[int, str]
    interface: str = "eth0"
    host_interface: str = ""

    def ip(self, version: int) -> IpAddress:
        return ip_address(self.addresses[version])


@dataclass
class World:
    """`node` routes between `pod`, `other` (a second pod) and `outside`."""

    prefix: str
    places: dict[str, Place] = field(default_factory=dict)
    cgroup: dict[str, Path] = field(default_factory=dict)
    _moving: threading.RLock = field(default_factory=threading.RLock)
    _owner: str = ""

    @property
    def node(self) -> Place:
        return self.places["node"]

    @property
    def pod(self) -> Place:
        return self.places["pod"]

    @property
    def other(self) -> Place:
        return self.places["other"]

    @property
    def outside(self) -> Place:
        return self.places["outside"]

    @contextlib.contextmanager
    def inside(self, place: Place, owner: str) -> Iterator[None]:
        """This thread is in the namespace and the process in the cgroup; one thread at a time. The process stays in the
        cgroup, since moving takes the kernel some ten milliseconds."""
        with self._moving:
            if self._owner != owner:
                _move(self.cgroup[owner])
                self._owner = owner
            with entered(place.netns):
                yield

    def socket(
        self, place: Place, family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0, *, owner: str = "app"
    ) -> socket.socket:
        with self.inside(place, owner):
            return socket.socket(family, kind, protocol)

    def cgroup_id(self, owner: str) -> int:
        return cgroups.cgroup_id_of(self.cgroup[owner])


def _emptied(cgroup: Path) -> None:
    """Remove it: what a killed process had started may end a moment later than that."""

    def removed() -> bool:
        try:
            cgroup.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    until(removed, f"{cgroup} is empty")


def _move(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


def family_of(version: int) -> int:
    return socket.AF_INET6 if version == 6 else socket.AF_INET


@contextlib.contextmanager
def world(prefix: str) -> Iterator[World]:
    """Make it all, and remove it all."""
    root = cgroups.mount_point()
    assert root is not None
    made = World(prefix)
    with contextlib.ExitStack() as stack:
        home = Path("/proc/self/cgroup").read_text().split("0::", 1)[1].splitlines()[0]
        for owner, path in {"node": root / prefix, **{name: root / prefix / name for name in OWNERS}}.items():
            path.mkdir()
            stack.callback(_emptied, path)
            made.cgroup[owner] = path
        stack.callback(_move, root / home.lstrip("/"))
        node = _namespace(stack, f"{prefix}-node")
        run("nsenter", f"--net=/run/netns/{prefix}-node", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        run("nsenter", f"--net=/run/netns/{prefix}-node", "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
        made.places["node"] = Place("node", node, {4: "10.213.0.1", 6: "fd00:213::1"}, "lo")
        run("nsenter", f"--net=/run/netns/{prefix}-node", "ip", "addr", "add", "10.213.0.1/32", "dev", "lo")
        run("nsenter", f"--net=/run/netns/{prefix}-node", "ip", "addr", "add", "fd00:213::1/128", "dev", "lo", "nodad")
        for number, name in enumerate(("pod", "other", "outside"), start=1):
            made.places[name] = _place(stack, prefix, name, number)
        yield made


def _namespace(stack: contextlib.ExitStack, name: str) -> int:
    run("ip", "netns", "add", name)
    stack.callback(run, "ip", "netns", "del", name)
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    for scope in ("all", "default"):  # addresses are good at once
        run("nsenter", f"--net=/run/netns/{name}", "sysctl", "-qw", f"net.ipv6.conf.{scope}.accept_dad=0")
    run("nsenter", f"--net=/run/netns/{name}", "ip", "link", "set", "lo", "up")
    return descriptor


def _place(stack: contextlib.ExitStack, prefix: str, name: str, number: int) -> Place:
    netns = f"{prefix}-{name}"
    descriptor = _namespace(stack, netns)
    node = f"{prefix}-node"
    run("ip", "link", "add", name, "netns", node, "type", "veth", "peer", "name", "eth0", "netns", netns)
    for namespace, device, end in ((node, name, 1), (netns, "eth0", 2)):
        run("nsenter", f"--net=/run/netns/{namespace}", "ip", "addr", "add", f"10.213.{number}.{end}/24", "dev", device)
        run(
            "nsenter",
            f"--net=/run/netns/{namespace}",
            "ip",
            "addr",
            "add",
            f"fd00:213:{number}::{end}/64",
            "dev",
            device,
            "nodad",
        )
        run("nsenter", f"--net=/run/netns/{namespace}", "ip", "link", "set", device, "up")
    run("nsenter", f"--net=/run/netns/{netns}", "ip", "route", "add", "default", "via", f"10.213.{number}.1")
    run("nsenter", f"--net=/run/netns/{netns}", "ip", "-6", "route", "add", "default", "via", f"fd00:213:{number}::1")
    addresses = {4: f"10.213.{number}.2", 6: f"fd00:213:{number}::2"}
    return Place(name, descriptor, addresses, "eth0", name)
