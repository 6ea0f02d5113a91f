"""Sockets of the small world's pods: of the test's own namespace, and as hard of hearing as a test wants them."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import TYPE_CHECKING, Final

from ambient.model.address import Endpoint
from ztunnel.proxy.sockets import PodSockets

if TYPE_CHECKING:
    from tests.support.tunnel import World

_SO_ATTACH_FILTER: Final = 26


class HereSockets(PodSockets):
    """Sockets in the test's own namespace, without a mark: neither needs privileges.

    The world's `redirect` does what capture does: a connection accepted at the key was dialled to the value.
    """

    __slots__ = ("_world",)

    def __init__(self, netns_fd: int, world: World) -> None:
        os.close(netns_fd)
        super().__init__(-1, mark=0)
        self._world = world

    def dialled(self, sock: socket.socket) -> Endpoint:
        found = super().dialled(sock)
        return self._world.redirect.get(found, found)

    def tcp(self, version: int) -> socket.socket:
        if not self._world.unheard:
            return super().tcp(version)
        self._world.unheard -= 1
        return deaf()


def deaf() -> socket.socket:
    """A socket that nothing gets to: its attempt is never answered, however often the kernel repeats it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    nothing = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # linux/filter.h: return 0
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(nothing)))
    return sock
