"""What the agent does inside a pod's network namespace. Synchronous: callers run it on a worker thread.

Enters the namespace only for the length of one call and leaves nothing there; routes and programs are the datapath's.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.agent.journal import OlderConnection
from ambient.agent.older import find_older
from ambient.datapath.sockets import OPEN_STATES, TcpSocket, TcpState, destroy_tcp, list_tcp, open_diag
from ambient.errors import KernelError, Unavailable
from ambient.model.address import IpAddress
from ambient.netns import entered

_SO_NETNS_COOKIE: Final = 71
_SETTLED: Final = OPEN_STATES | {TcpState.LISTEN}
_DEFAULT_EPHEMERAL: Final = range(32768, 61000)


@dataclass(frozen=True, slots=True)
class PodNetns:
    """An open network namespace. `cookie` names it for the life of the kernel (inode numbers are used again)."""

    fd: int
    cookie: int
    path: str

    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        found = os.fstat(self.fd)
        return found.st_dev, found.st_ino

    def close(self) -> None:
        os.close(self.fd)


def open_netns(path: str) -> PodNetns:
    """Open a pod's namespace; the caller closes it. Raises Unavailable when it is not there (yet, or any more).

    The node's own namespace is never taken for a pod's.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable("pod network namespace", path, error.strerror or str(error)) from error
    return adopt_netns(fd, path)


def adopt_netns(fd: int, path: str) -> PodNetns:
    """The same for a descriptor that is open already, and is closed when this raises."""
    try:
        if os.fstat(fd).st_ino == os.stat("/proc/thread-self/ns/net").st_ino:
            raise Unavailable("pod network namespace", path, "is the node's own")
        cookie = cookie_of(fd)
    except KernelError as error:
        os.close(fd)
        raise Unavailable("pod network namespace", path, f"is no network namespace ({error.why})") from error
    except BaseException:
        os.close(fd)
        raise
    return PodNetns(fd, cookie, path)


def cookie_of(netns_fd: int) -> int:
    """What names a network namespace for the life of the kernel. Raises KernelError."""
    with entered(netns_fd), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        (cookie,) = struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))
    return int(cookie)


def absent_addresses(netns_fd: int, addresses: Iterable[IpAddress]) -> list[IpAddress]:
    """Those of `addresses` that no interface of the namespace has (or, for IPv6, not yet)."""
    absent = []
    with entered(netns_fd):
        for ip in addresses:
            family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                try:
                    probe.bind((str(ip), 0))
                except OSError:
                    absent.append(ip)
    return absent


def sockets(netns_fd: int, *, listeners: bool = False) -> list[TcpSocket]:
    """The namespace's TCP connections, with its listeners if asked for; raises KernelError."""
    with entered(netns_fd), open_diag() as diag:
        return list_tcp(diag, _SETTLED if listeners else OPEN_STATES)


def record_older(netns_fd: int, addresses: Iterable[IpAddress]) -> tuple[OlderConnection, ...]:
    """The pod's connections that do not go through ztunnel now."""
    with entered(netns_fd), open_diag() as diag:
        found = list_tcp(diag, _SETTLED)
        ephemeral = _ephemeral()
    return find_older(found, frozenset(addresses), ephemeral)


def end(netns_fd: int, targets: Iterable[TcpSocket]) -> list[TcpSocket]:
    """End these connections; gives those that were still there. Verified by listing again: raises KernelError when
    the kernel says done and the connection lives on."""
    with entered(netns_fd), open_diag() as diag:
        ended = [target for target in targets if destroy_tcp(diag, target)]
        living = {s.cookie for s in list_tcp(diag)}
    for target in ended:
        if target.cookie in living:
            raise KernelError("a connection survived its end", f"{target.local} - {target.remote}", "still listed")
    return ended


def _ephemeral() -> range:
    """The ports that clients draw from, in the namespace of the calling thread (as /proc/sys/net always shows)."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except (OSError, ValueError):
        return _DEFAULT_EPHEMERAL
    return range(int(low), int(high) + 1)
