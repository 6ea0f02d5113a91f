"""Asks the kernel of one network namespace whether it knows a TCP connection (sock_diag, linux/inet_diag.h).

A socket that speaks as a client may get the very port that the client itself uses towards the same application: then
our SYN would meet the accepted socket of the real connection (or one that is older than we are, or what is left of one
in TIME_WAIT) instead of the listener, and stall or reset it. A lookup costs a few microseconds and is answered at once.
"""

from __future__ import annotations

import socket
import struct
from enum import Enum
from typing import Final

from ambient.model.address import Endpoint

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_ALL_STATES: Final = 0xFFFFFFFF
_NO_COOKIE: Final = b"\xff" * 8
_TIME_WAIT: Final = 6
_LISTEN: Final = 10
_HEADER: Final = struct.Struct("=IHHII")
_KIND: Final = struct.Struct("=BBBxI")
_PORTS: Final = struct.Struct(">HH16s16s")
_LENGTH: Final = _HEADER.size + _KIND.size + _PORTS.size + 4 + 8


class Found(Enum):
    """`REMAINS`: a side in TIME_WAIT; the kernel usually lets a new connection follow it."""

    NOTHING = 0
    REMAINS = 1
    CONNECTION = 2


class Tuples:
    """Made while the thread is in the namespace it is about. Owns a netlink socket until `close`."""

    __slots__ = ("_sock",)

    def __init__(self) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG)

    def find(self, local: Endpoint, remote: Endpoint) -> Found:
        """What there is of this connection, seen from `local`. NOTHING also when the kernel cannot tell."""
        family = socket.AF_INET if local.ip.version == 4 else socket.AF_INET6
        request = (
            _HEADER.pack(_LENGTH, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
            + _KIND.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES)
            + _PORTS.pack(local.port, remote.port, local.ip.packed, remote.ip.packed)
            + bytes(4)
            + _NO_COOKIE
        )
        try:
            self._sock.send(request)
            answer = self._sock.recv(4096)
        except OSError:
            return Found.NOTHING
        # Anything but a socket is an error message: there is none, or sock_diag is not there.
        _, kind, _, _, _ = _HEADER.unpack_from(answer)
        state = answer[_HEADER.size + 1] if kind == _SOCK_DIAG_BY_FAMILY else _LISTEN
        if state == _LISTEN:
            return Found.NOTHING
        return Found.REMAINS if state == _TIME_WAIT else Found.CONNECTION

    def close(self) -> None:
        self._sock.close()
