"""Bytes to a pod's port and back, over the API server's channels."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest

from ambient.errors import Unavailable
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import Forbidden
from ambient.kube.api.portforward import carry
from tests.support.kube_forward import ForwardingApi

BYTES = bytes(range(256)) * 1000


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As much back as came, then the end."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        writer.write(await reader.readexactly(len(BYTES)))
        await writer.drain()
    writer.close()


def _against(scenario: Callable[[ForwardingApi, ApiClient, socket.socket, socket.socket], Awaitable[None]]) -> None:
    async def run() -> None:
        server = await asyncio.start_server(_echo, "127.0.0.1", 0)
        near, far = socket.socketpair()
        near.setblocking(False)
        async with ForwardingApi() as api, ApiClient(api.access()) as client, server:
            api.ports["a", "p", 7] = server.sockets[0].getsockname()[1]
            try:
                await scenario(api, client, near, far)
            finally:
                near.close()

    asyncio.run(run())


def test_what_is_written_arrives_and_what_comes_back_is_read_until_its_end() -> None:
    async def scenario(api: ForwardingApi, client: ApiClient, near: socket.socket, far: socket.socket) -> None:
        carrying = asyncio.create_task(carry(client, "a", "p", 7, far))
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(near, BYTES))
        back = b""
        while data := await loop.sock_recv(near, 65536):
            back += data
        await sending
        await carrying
        assert back == BYTES

    _against(scenario)


def test_it_ends_when_this_side_ends() -> None:
    async def scenario(api: ForwardingApi, client: ApiClient, near: socket.socket, far: socket.socket) -> None:
        carrying = asyncio.create_task(carry(client, "a", "p", 7, far))
        near.close()
        await asyncio.wait_for(carrying, 5)

    _against(scenario)


def test_a_port_that_is_closed_is_told_in_the_nodes_words_and_this_side_ends() -> None:
    async def scenario(api: ForwardingApi, client: ApiClient, near: socket.socket, far: socket.socket) -> None:
        with pytest.raises(Unavailable, match="pod a/p, port 8: failed to connect"):
            await carry(client, "a", "p", 8, far)
        assert await asyncio.get_running_loop().sock_recv(near, 1) == b""

    _against(scenario)


def test_who_may_not_is_forbidden() -> None:
    async def scenario(api: ForwardingApi, client: ApiClient, near: socket.socket, far: socket.socket) -> None:
        api.allowed = False
        with pytest.raises(Forbidden):
            await carry(client, "a", "p", 7, far)

    _against(scenario)
