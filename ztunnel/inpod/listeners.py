"""The listening sockets of one pod, bound inside its network namespace (interop 1.1 and the capture contract).

Bound once per pod by the director; every worker gets the same open sockets, so a worker's death costs nothing.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Final

from ambient.errors import InvalidInput, KernelError
from ambient.model.address import DNS_PORT, HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT, PROXY_MARK
from ambient.netns import entered

BACKLOG: Final = 1024

# Missing from Python 3.11's socket module (linux/in.h, linux/in6.h).
_IP_RECVORIGDSTADDR: Final = 20
_IPV6_TRANSPARENT: Final = 75
_IPV6_RECVORIGDSTADDR: Final = 74
# linux/nsfs.h, linux/sched.h. The name under /proc/self/fd will not do: of a bind mount it is the path.
_NS_GET_NSTYPE: Final = 0xB703
_CLONE_NEWNET: Final = 0x40000000

_SO_ATTACH_FILTER: Final = 26
_INSTRUCTION: Final = struct.Struct("=HBBI")
_NO_SYN: Final = (
    (0x30, 0, 0, 13),  # the flags of the TCP header
    (0x54, 0, 0, 0x12),  # SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFF_FFFF),  # keep whole
)

NAMES: Final = ("netns", "outbound", "plaintext", "hbone", "dns_udp_v4", "dns_tcp_v4", "dns_udp_v6", "dns_tcp_v6")
"""Order of the descriptors of one pod, as `PodUp` carries them."""


@dataclass(frozen=True, slots=True)
class Listeners:
    """Open descriptors of one pod: the namespace first, then its sockets in the order of NAMES."""

    inode: int
    fds: tuple[int, ...]

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)

    def refuse_new(self) -> None:
        """Ignore SYNs from here on, for every process that holds these sockets: whoever dials tries again and meets
        the next ztunnel, while handshakes under way and connections not accepted yet come to their end here."""
        for fd in self.fds[1:]:
            with socket.socket(fileno=os.dup(fd)) as sock:
                if sock.type == socket.SOCK_STREAM:
                    ignore_syns(sock)

    def stop(self) -> None:
        """Stop listening for every process that holds these sockets: the kernel answers as if nobody were there."""
        for fd in self.fds[1:]:
            with socket.socket(fileno=os.dup(fd)) as sock:
                if sock.type == socket.SOCK_STREAM:
                    with suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)


def ignore_syns(listener: socket.socket) -> None:
    """Have the kernel drop, unanswered, whatever would begin a connection (classic BPF, linux/filter.h)."""
    program = array("B", b"".join(_INSTRUCTION.pack(*one) for one in _NO_SYN))
    address, _ = program.buffer_info()
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), address))


def netns_inode(fd: int) -> int:
    """Identity of a network namespace. Raises InvalidInput for a descriptor that is not one."""
    try:
        kind = fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError as error:
        raise InvalidInput("not a network namespace", f"descriptor {fd}", str(error)) from None
    if kind != _CLONE_NEWNET:
        raise InvalidInput("not a network namespace", f"descriptor {fd}", f"namespace of type {kind:#x}")
    return os.fstat(fd).st_ino


def bind(netns: int, *, ipv6: bool, dns: bool, captured: bool = True) -> Listeners:
    """Bind every socket of a pod; `netns` is owned by the result on success, by the caller on KernelError.

    Where nothing is `captured` only the tunnel port is for others: the rest listens on loopback, where nobody dials it.
    """
    inode = netns_inode(netns)
    wildcard = "::" if ipv6 else "0.0.0.0"
    within = wildcard if captured else "::1" if ipv6 else "127.0.0.1"
    plan: list[tuple[str, Callable[[], socket.socket]]] = [
        (f"tcp {port}", lambda port=port: _tcp(within, port, dual=ipv6 and captured))  # type: ignore[misc]
        for port in (OUTBOUND_PORT, PLAINTEXT_PORT)
    ]
    plan.append((f"tcp {HBONE_PORT}", lambda: _tcp(wildcard, HBONE_PORT, dual=ipv6)))
    names = ("0.0.0.0", "::") if captured else ("127.0.0.1", "::1")
    for host in names[: 1 + ipv6] if dns else ():
        plan.append((f"udp {host} {DNS_PORT}", lambda host=host: _udp(host, DNS_PORT)))  # type: ignore[misc]
        plan.append((f"tcp {host} {DNS_PORT}", lambda host=host: _tcp(host, DNS_PORT, dual=False)))  # type: ignore[misc]
    with ExitStack() as undo, entered(netns):
        sockets = []
        for name, make in plan:
            try:
                sockets.append(undo.enter_context(make()))
            except OSError as error:
                raise KernelError("cannot listen in the pod", name, error.strerror or str(error)) from None
        undo.pop_all()
    return Listeners(inode, (netns, *(sock.detach() for sock in sockets)))


def adopt(fds: Sequence[int], *, ipv6: bool, dns: bool) -> Listeners:
    """Listeners that a worker gave back; the result owns them.

    Raises InvalidInput when they are not what `bind` would have made; the caller still owns them then.
    """
    expected = 4 + (0 if not dns else 4 if ipv6 else 2)
    if len(fds) != expected:
        raise InvalidInput("not the listeners of a pod", why=f"{len(fds)} descriptors, expected {expected}")
    inode = netns_inode(fds[0])
    ports = [OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT, *([DNS_PORT] * (expected - 4))]
    for fd, port in zip(fds[1:], ports, strict=True):
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise InvalidInput("not the listeners of a pod", why=f"descriptor for port {port} is no socket")
        with socket.socket(fileno=os.dup(fd)) as sock:
            if sock.getsockname()[1] != port:
                raise InvalidInput("not the listeners of a pod", why=f"bound to {sock.getsockname()}, not to {port}")
    return Listeners(inode, tuple(fds))


def _tcp(host: str, port: int, *, dual: bool) -> socket.socket:
    sock = _prepared(socket.SOCK_STREAM, host, dual=dual)
    sock.bind((host, port))
    sock.listen(BACKLOG)
    return sock


def _udp(host: str, port: int) -> socket.socket:
    sock = _prepared(socket.SOCK_DGRAM, host, dual=False)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVORIGDSTADDR, 1)
    sock.bind((host, port))
    return sock


def _prepared(kind: socket.SocketKind, host: str, *, dual: bool) -> socket.socket:
    """A non-blocking, marked, transparent socket that may share its port with another ztunnel."""
    six = ":" in host
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        if not six or dual:
            # A dual stack socket answers IPv4 clients from their original destination too.
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
    except OSError:
        sock.close()
        raise
    return sock
