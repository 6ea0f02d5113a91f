"""What Envoy talks to: its secrets from here, all other discovery carried to the control plane and back, unread.

Each stream of Envoy's is one stream to the control plane, opened with the token as it is at that moment. Where that
one ends, Envoy's ends too, and Envoy comes again with what it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio

from ambient.errors import MeshError, Unavailable
from ambient.waypoint.agent.identity import OwnIdentity
from ambient.waypoint.typed import SECRET_TYPE
from ambient.xds.channel import ServerSettings, as_mesh_error, call_metadata, connected, open_channel
from ambient.xds.messages import METHOD, decode_request, encode_response
from ambient.xds.server import DeltaStream, Order

SECRETS_METHOD: Final = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
_SECRET_ORDER: Final = Order((SECRET_TYPE,))

_log = logging.getLogger("waypoint.discovery")


class AgentServer:
    """gRPC on a Unix socket in a folder of our own."""

    def __init__(self, control: ServerSettings, identity: OwnIdentity) -> None:
        self._control = control
        self._identity = identity
        self._wakers: set[asyncio.Event] = set()
        self._server: grpc.aio.Server | None = None
        identity.listeners.append(self._wake)

    async def start(self, socket: Path) -> None:
        """Listen; raises Unavailable."""
        server = grpc.aio.server(options=(("grpc.max_receive_message_length", 64 << 20),))
        server.add_generic_rpc_handlers(
            (stream_handler(METHOD, self._relay), stream_handler(SECRETS_METHOD, self._secrets))
        )
        if not server.add_insecure_port(f"unix:{socket}"):
            raise Unavailable("cannot listen", str(socket))
        await server.start()
        self._server = server

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    async def _secrets(self, requests: AsyncIterator[bytes], context: Any) -> None:
        stream, wake = DeltaStream(self._identity.secrets, order=_SECRET_ORDER), asyncio.Event()
        self._wakers.add(wake)

        async def read() -> None:
            async for data in requests:
                request = decode_request(data)
                if request.error is not None:
                    _log.error("Envoy refuses its own certificate: %s", request.error)
                stream.receive(request)
                wake.set()
            wake.set()

        reader = asyncio.create_task(read())
        try:
            while not reader.done():
                await wake.wait()
                wake.clear()
                while (response := stream.pull()) is not None:
                    await context.write(encode_response(response))
            reader.result()
        except MeshError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self._wakers.discard(wake)
            reader.cancel()

    async def _relay(self, requests: AsyncIterator[bytes], context: Any) -> None:
        try:
            await self._carry(requests, context)
        except MeshError as error:
            _log.warning("no discovery: %s", error)
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def _carry(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Until either end is over; raises MeshError when the control plane's end fails."""
        channel = open_channel(self._control)
        try:
            await connected(channel, self._control.target)
            stream: Any = channel.stream_stream(METHOD, request_serializer=None, response_deserializer=None)
            call = stream(metadata=tuple(call_metadata(self._control)))
            _log.info("discovery from %s", self._control.target)

            async def up() -> None:
                async for data in requests:
                    await call.write(data)
                await call.done_writing()

            writer = asyncio.create_task(up())
            try:
                async for data in call:
                    await context.write(data)
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        except grpc.aio.AioRpcError as error:
            raise as_mesh_error(error, "discovery ended", self._control.target) from None
        finally:
            await channel.close(None)


def stream_handler(method: str, serve: Any) -> grpc.GenericRpcHandler[bytes, bytes]:
    """A method ("/service/name") that carries messages both ways, unread."""
    service, _, name = method.removeprefix("/").partition("/")
    made = grpc.stream_stream_rpc_method_handler(serve, request_deserializer=None, response_serializer=None)
    return grpc.method_handlers_generic_handler(service, {name: made})
