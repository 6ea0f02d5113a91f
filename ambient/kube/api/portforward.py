"""A TCP connection to a port of a pod, through the API server, as `kubectl port-forward` has it.

One WebSocket per connection (subprotocol v4.channel.k8s.io): channel 0 carries the bytes, channel 1 what went wrong;
each begins with the port as two octets. The other end is a port on the loopback of the pod's network namespace.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import aiohttp

from ambient.errors import Unavailable
from ambient.kube.api.client import ApiClient
from ambient.kube.resource import Resource

PODS: Final = Resource("v1", "pods")
PROTOCOL: Final = "v4.channel.k8s.io"
_PIECE: Final = 32 * 1024
_DATA, _ERROR = 0, 1


async def carry(api: ApiClient, namespace: str, pod: str, port: int, local: socket.socket) -> None:
    """Carry bytes between `local` (a connected stream socket, closed at the end) and the pod's port until either ends.

    Raises Forbidden, NotThere, ApiUnavailable when the API server does not let us, Unavailable with what the node
    said when nobody listens there.
    """
    path = PODS.path(namespace, pod, "portforward")
    local.setblocking(False)
    try:
        async with api.websocket(path, query={"ports": str(port)}, protocol=PROTOCOL) as far:
            up = asyncio.create_task(_up(local, far))
            try:
                await _down(local, far, f"pod {namespace}/{pod}, port {port}")
            finally:
                up.cancel()
                await asyncio.gather(up, return_exceptions=True)
    finally:
        local.close()


async def _up(local: socket.socket, far: aiohttp.ClientWebSocketResponse) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(local, _PIECE):
        await far.send_bytes(bytes((_DATA,)) + data)
    await far.close()


async def _down(local: socket.socket, far: aiohttp.ClientWebSocketResponse, where: str) -> None:
    loop = asyncio.get_running_loop()
    begun: set[int] = set()
    async for message in far:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel not in begun:
            begun.add(channel)
            data = data[2:]
        if not data:
            continue
        if channel == _ERROR:
            raise Unavailable("cannot forward", where, data.decode(errors="replace").strip())
        await loop.sock_sendall(local, data)
