"""Sockets as the capture contract wants them: made inside the pod's network namespace, marked, non-blocking.

Also what an accepted socket says about itself: who dialled, and where to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from ipaddress import IPv4Address, IPv6Address
from itertools import count
from random import randrange
from typing import Final

from ambient.errors import KernelError
from ambient.model.address import PROXY_MARK, ZTUNNEL_PORTS, Endpoint, IpAddress
from ambient.netns import entered
from ztunnel.addresses import address_of, text_of
from ztunnel.proxy.tuples import Found, Tuples
from ztunnel.tuning import Tuning

_SO_ORIGINAL_DST: Final = 80
_IP_TRANSPARENT: Final = 19
_IPV6_TRANSPARENT: Final = 75
_ORIGINAL_DST_FORMS: Final = ((socket.SOL_IP, 16), (socket.IPPROTO_IPV6, 28))
_BATCH: Final = 8
_SPARE_S: Final = 5
_FIRST_PORT: Final = 32_768
_PORTS: Final = 28_232
"""As many from there on: the kernel's own default range."""

BARE_SOCKET: Final[Callable[..., socket.socket]] = socket.SocketType  # type: ignore[assignment]
"""A socket without the layer of Python that `socket.socket` puts around it: two of them are made, and closed, for every
connection, and nobody needs `makefile` and context managers there."""


def keep_alive(sock: socket.socket, tuning: Tuning) -> None:
    """Options of every application-side socket; a listening socket's are inherited."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _find_the_gone(sock, tuning)


def _find_the_gone(sock: socket.socket, tuning: Tuning) -> None:
    """Those that find out that a peer is gone: after minutes."""
    if tuning.keepalive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, tuning.keepalive_idle_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, tuning.keepalive_interval_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, tuning.keepalive_probes)
    if tuning.user_timeout_ms:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, tuning.user_timeout_ms)


def unconfirmed(sock: socket.socket) -> int:
    """Octets written to it that the other end's kernel has not confirmed yet; 0 for one that cannot be asked."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))
    except (OSError, ValueError):  # the latter: a closed one
        return 0
    return int(count)


def endpoint_of(name: tuple[object, ...]) -> Endpoint:
    """A socket name (AF_INET or AF_INET6) as endpoint."""
    return Endpoint(address_of(name[0]), name[1])  # type: ignore[arg-type]


def original_destination(sock: socket.socket) -> Endpoint:
    """Where the client of an accepted socket dialled.

    A capture that keeps the destination leaves it as the local name. One that rewrites it (REDIRECT) leaves the port
    of our listener there, and conntrack knows the rest.
    """
    local = endpoint_of(sock.getsockname())
    if local.port not in ZTUNNEL_PORTS:
        return local
    for level, size in _ORIGINAL_DST_FORMS if sock.family == socket.AF_INET6 else _ORIGINAL_DST_FORMS[:1]:
        try:
            raw = sock.getsockopt(level, _SO_ORIGINAL_DST, size)
        except OSError:
            continue
        if len(raw) == 16 and struct.unpack_from("=H", raw)[0] == socket.AF_INET:
            return Endpoint(IPv4Address(raw[4:8]), struct.unpack_from(">H", raw, 2)[0])
        if len(raw) == 28 and struct.unpack_from("=H", raw)[0] == socket.AF_INET6:
            address = IPv6Address(raw[8:24])
            return Endpoint(address.ipv4_mapped or address, struct.unpack_from(">H", raw, 2)[0])
    return local


class PodSockets:
    """Makes sockets in one pod's network namespace. Owns `netns_fd` until `close`; -1 is the namespace we are in. Once
    closed it makes none: they would be in ours, and speak for the pod from there.

    Entering a namespace costs system calls, so TCP sockets are made a few at a time and kept for the next use; a pod
    that stops connecting gives them back. What finds peers that are gone is set within a second (`tick`), on those that
    are still open then: it counts after minutes, and costs a short connection four system calls.
    """

    __slots__ = ("_closed", "_mark", "_netns_fd", "_quiet", "_spare", "_tuples", "_young", "tuning")

    def __init__(self, netns_fd: int, mark: int = PROXY_MARK) -> None:
        self.tuning = Tuning()
        self._netns_fd = netns_fd
        self._closed = False
        self._mark = mark
        self._spare: dict[int, list[socket.socket]] = {}
        self._young: list[socket.socket] = []
        self._quiet = 0
        self._tuples: Tuples | None = None

    def dialled(self, sock: socket.socket) -> Endpoint:
        """Where the client of a socket accepted in this pod wanted to go."""
        return original_destination(sock)

    def tcp(self, version: int) -> socket.socket:
        """An unbound TCP socket for IP version 4 or 6. Raises KernelError."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        self._quiet = 0
        spare = self._spare.setdefault(family, [])
        if not spare:
            try:
                with self._inside():
                    for _ in range(_BATCH):
                        spare.append(BARE_SOCKET(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                for sock in spare:
                    if self._mark:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._young += spare
            except OSError as error:
                for sock in spare:
                    sock.close()
                spare.clear()
                raise KernelError("socket", "pod network namespace", str(error)) from None
        return spare.pop()

    def udp(self, version: int) -> socket.socket:
        """An unbound UDP socket, marked. Raises KernelError."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        try:
            with self._inside():
                sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            if self._mark:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
        except OSError as error:
            raise KernelError("socket", "pod network namespace", str(error)) from None
        return sock

    def found(self, local: Endpoint, remote: Endpoint) -> Found:
        """What the namespace knows of a connection between these two, seen from `local`."""
        if self._tuples is None:
            try:
                with self._inside():
                    self._tuples = Tuples()
            except (OSError, KernelError):
                return Found.NOTHING
        return self._tuples.find(local, remote)

    def is_local(self, ip: IpAddress) -> bool:
        """The address is one of this namespace's own, whoever put it there: only such a one can be bound to."""
        try:
            with self.udp(ip.version) as sock:
                sock.bind((str(ip), 0))
        except (OSError, KernelError):
            return False
        return True

    def _inside(self) -> AbstractContextManager[None]:
        if self._closed:
            raise OSError(errno.ENETDOWN, "the pod is gone")
        return nullcontext() if self._netns_fd < 0 else entered(self._netns_fd)

    def tick(self) -> None:
        """Once a second: what is kept for the next use goes when there was none for a while."""
        self._come_of_age()
        self._quiet += 1
        if self._quiet > _SPARE_S:
            self._give_back()

    def _come_of_age(self) -> None:
        young, self._young = self._young, []
        for sock in young:
            if sock.fileno() >= 0:
                with suppress(OSError):  # the last step of one that is being reset
                    _find_the_gone(sock, self.tuning)

    def _give_back(self) -> None:
        for spare in self._spare.values():
            for sock in spare:
                sock.close()
        self._spare.clear()

    def close(self) -> None:
        """Close what is kept and the namespace descriptor."""
        self._closed = True
        self._give_back()
        self._come_of_age()
        if self._tuples is not None:
            self._tuples.close()
            self._tuples = None
        if self._netns_fd >= 0:
            os.close(self._netns_fd)
            self._netns_fd = -1


def ports_in_turn() -> Iterator[int]:
    """Ports to speak from, without end, one after the other: what is in TIME_WAIT is met again as late as can be.

    The kernel is not asked to choose: among some thousand ports in TIME_WAIT it was measured to search milliseconds.
    """
    start = randrange(_PORTS)  # every worker begins elsewhere
    for number in count(start):
        yield _FIRST_PORT + number % _PORTS


def speak_as(sock: socket.socket, source: Endpoint) -> None:
    """Bind to a foreign address so that the other side sees the real client; raises OSError.

    With port 0 the kernel chooses one here and now, not when connecting: ports chosen then were measured to meet those
    in TIME_WAIT. A port that is given may be shared with sockets that go elsewhere. Either way it may be shared after.
    """
    # The socket is of the address's family; asked for its own it makes an enum of it each time.
    if source.ip.version == 4:
        sock.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    if source.port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((text_of(source.ip), source.port))
    if not source.port:
        # Only now: it would have halved the ports to choose from.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
