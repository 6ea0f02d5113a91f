"""The fake API server with pods that have ports: port-forwards lead to servers on this machine's loopback."""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, web

from ambient.kube.api.portforward import PROTOCOL
from tests.support.kube_api import FakeApi, status_body

_READ = 4096


class ForwardingApi(FakeApi):
    """`ports`: (namespace, pod, port) -> the port of this machine's loopback that stands for it."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[tuple[str, str, int], int] = {}
        self.allowed = True
        self.speaks = PROTOCOL

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.split("/")
        if parts[-1] != "portforward":
            return await super()._serve(request)
        if not self.allowed:
            body = status_body(403, "Forbidden", 'cannot create resource "pods/portforward"')
            return web.Response(status=403, body=body, content_type="application/json")
        if request.headers.get("Accept") != "*/*":  # as real ones do: there is no JSON to be had here
            return web.Response(status=406)
        connection = web.WebSocketResponse(protocols=(self.speaks,))
        await connection.prepare(request)
        port = int(request.query["ports"])
        for channel in (0, 1):
            await connection.send_bytes(bytes((channel,)) + port.to_bytes(2, "little"))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[parts[4], parts[6], port])
        except (OSError, KeyError):
            await connection.send_bytes(b"\x01failed to connect: connection refused")
            return connection
        back = asyncio.create_task(_back(reader, connection))
        try:
            async for message in connection:
                if message.type is WSMsgType.BINARY:
                    writer.write(message.data[1:])
        finally:
            back.cancel()
            writer.close()
            await asyncio.gather(back, writer.wait_closed(), return_exceptions=True)
        return connection


async def _back(reader: asyncio.StreamReader, connection: web.WebSocketResponse) -> None:
    while data := await reader.read(_READ):
        await connection.send_bytes(b"\x00" + data)
    await connection.close()
