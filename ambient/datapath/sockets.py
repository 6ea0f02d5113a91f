"""List and end TCP sockets of a network namespace through sock_diag (netlink family 4).

Works on a netlink socket opened in the namespace of interest; never enters a namespace itself and keeps nothing
between calls. Request and answer layouts: linux/inet_diag.h and linux/sock_diag.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ambient.errors import KernelError
from ambient.model.address import Endpoint, IpAddress, canonical

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_SOCK_DESTROY: Final = 21
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLM_F_REQUEST: Final = 0x1
_NLM_F_ACK: Final = 0x4
_NLM_F_DUMP: Final = 0x300
_INET_DIAG_MARK: Final = 15
_INET_DIAG_CGROUP_ID: Final = 21

_NLMSGHDR: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=BBBxI")
_SOCKID: Final = struct.Struct("!HH16s16s")  # ports and addresses; interface and cookie follow in host order
_SOCKID_TAIL: Final = struct.Struct("=III")
_ANSWER: Final = struct.Struct("=BBBB")
_ANSWER_TAIL: Final = struct.Struct("=IIIII")
_SOCKID_SIZE: Final = _SOCKID.size + _SOCKID_TAIL.size
_ANSWER_SIZE: Final = _ANSWER.size + _SOCKID_SIZE + _ANSWER_TAIL.size
_RTA: Final = struct.Struct("=HH")
_ANSWER_BYTES: Final = 1 << 18
_TIMEOUT_S: Final = 5.0


class TcpState(IntEnum):
    """States of linux/tcp_states.h."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


OPEN_STATES: Final = frozenset(TcpState) - {TcpState.LISTEN, TcpState.TIME_WAIT, TcpState.CLOSE}
"""Connections that somebody still holds or opens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSocket:
    """One TCP socket. IPv4-mapped addresses are given as IPv4; `family` keeps what the kernel has it under.

    `cookie` names the socket for the life of the kernel; `mark` is its SO_MARK (0 without CAP_NET_ADMIN), `cgroup`
    the id of the cgroup v2 that made it (0 where the kernel does not tell).
    """

    family: int
    state: TcpState
    local: Endpoint
    remote: Endpoint
    cookie: int
    interface: int = 0
    inode: int = 0
    mark: int = 0
    cgroup: int = 0


def open_diag() -> socket.socket:
    """A sock_diag socket for the network namespace of the calling thread; the caller closes it."""
    try:
        diag = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    except OSError as error:
        raise KernelError("cannot open sock_diag", "AF_NETLINK", error.strerror or str(error)) from error
    try:
        diag.settimeout(_TIMEOUT_S)
        diag.bind((0, 0))
    except OSError as error:
        diag.close()
        raise KernelError("cannot open sock_diag", "bind", error.strerror or str(error)) from error
    return diag


def list_tcp(diag: socket.socket, states: Iterable[TcpState] = OPEN_STATES) -> list[TcpSocket]:
    """Every TCP socket (IPv4 and IPv6) of the namespace in one of `states`; raises KernelError."""
    mask = 0
    for state in states:
        mask |= 1 << state
    found: list[TcpSocket] = []
    for sequence, family in enumerate((socket.AF_INET, socket.AF_INET6), start=1):
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, mask) + bytes(_SOCKID_SIZE)
        try:
            _send(diag, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, sequence, body)
            found.extend(_parse(payload) for payload in _answers(diag, sequence))
        except OSError as error:
            if error.errno == errno.ENOENT and family == socket.AF_INET6:
                continue  # a kernel without IPv6
            raise KernelError("cannot list TCP sockets", "sock_diag", error.strerror or str(error)) from error
    return found


def destroy_tcp(diag: socket.socket, target: TcpSocket) -> bool:
    """End this very socket (its owner sees ECONNABORTED, its peer a reset); False if it is gone already.

    The cookie is part of the request, so a new connection that reuses the addresses is never hit.
    Raises KernelError, for example where the kernel was built without INET_DIAG_DESTROY.
    """
    packed = _SOCKID.pack(
        target.local.port,
        target.remote.port,
        _address_bytes(target.local.ip, target.family),
        _address_bytes(target.remote.ip, target.family),
    )
    packed += _SOCKID_TAIL.pack(target.interface, target.cookie & 0xFFFFFFFF, target.cookie >> 32)
    body = _REQUEST.pack(target.family, socket.IPPROTO_TCP, 0, 1 << target.state) + packed
    try:
        _send(diag, _SOCK_DESTROY, _NLM_F_REQUEST | _NLM_F_ACK, 1, body)
        for _ in _answers(diag, 1):
            pass
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        where = f"{target.local} - {target.remote}"
        raise KernelError("cannot end a TCP connection", where, error.strerror or str(error)) from error
    return True


def _send(diag: socket.socket, kind: int, flags: int, sequence: int, body: bytes) -> None:
    diag.send(_NLMSGHDR.pack(_NLMSGHDR.size + len(body), kind, flags, sequence, 0) + body)


def _answers(diag: socket.socket, sequence: int) -> Iterator[bytes]:
    """Payloads that answer `sequence` up to DONE or the ACK; raises OSError with the kernel's errno."""
    while True:
        data = diag.recv(_ANSWER_BYTES)
        offset = 0
        while offset + _NLMSGHDR.size <= len(data):
            length, kind, _, answered, _ = _NLMSGHDR.unpack_from(data, offset)
            payload = data[offset + _NLMSGHDR.size : offset + length]
            offset += (length + 3) & ~3
            if answered != sequence:
                continue
            if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                code = -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                if code > 0:
                    raise OSError(code, os.strerror(code))
                return
            yield payload


def _parse(payload: bytes) -> TcpSocket:
    family, state, _, _ = _ANSWER.unpack_from(payload)
    sport, dport, source, destination = _SOCKID.unpack_from(payload, _ANSWER.size)
    interface, low, high = _SOCKID_TAIL.unpack_from(payload, _ANSWER.size + _SOCKID.size)
    *_, inode = _ANSWER_TAIL.unpack_from(payload, _ANSWER.size + _SOCKID_SIZE)
    mark = cgroup = 0
    offset = _ANSWER_SIZE
    while offset + _RTA.size <= len(payload):
        length, kind = _RTA.unpack_from(payload, offset)
        if length < _RTA.size:
            break
        if kind == _INET_DIAG_MARK:
            (mark,) = struct.unpack_from("=I", payload, offset + _RTA.size)
        elif kind == _INET_DIAG_CGROUP_ID:
            (cgroup,) = struct.unpack_from("=Q", payload, offset + _RTA.size)
        offset += (length + 3) & ~3
    return TcpSocket(
        family=family,
        state=TcpState(state),
        local=Endpoint(_address(family, source), sport),
        remote=Endpoint(_address(family, destination), dport),
        cookie=low | high << 32,
        interface=interface,
        inode=inode,
        mark=mark,
        cgroup=cgroup,
    )


def _address(family: int, packed: bytes) -> IpAddress:
    return IPv4Address(packed[:4]) if family == socket.AF_INET else canonical(IPv6Address(packed))


def _address_bytes(ip: IpAddress, family: int) -> bytes:
    if family == socket.AF_INET:
        return ip.packed.ljust(16, b"\0")
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed
