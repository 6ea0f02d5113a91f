"""Delta discovery over gRPC: authenticates each stream, then carries messages between it and `xds.server.DeltaStream`.

A slow client costs one unanswered response per type. A client that sends nothing, does not read, or opens streams
without end is cut off; each refusal says why, to the caller and (at a bounded rate) in the log.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import grpc.aio

from ambient.ca.token import Caller
from ambient.control.access import Gate, peer_of
from ambient.control.metrics import ControlMetrics
from ambient.control.waypoints import Waypoints
from ambient.errors import MeshError, ProtocolError, Refused, Unavailable
from ambient.log import LogLimit
from ambient.waypoint.bootstrap import GATEWAY_HEADER
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE
from ambient.xds.catalogue import Catalogue
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE
from ambient.xds.messages import METHOD, DeltaRequest, decode_request, encode_response
from ambient.xds.server import DeltaStream

MOST_STREAMS_PER_CLIENT: Final = 8
REST_S: Final = 0.001
"""Between two pushes of one stream, for every stream there is: about twice what a push costs."""
MOST_REST_S: Final = 0.2
_SERVICE, _, _NAME = METHOD.removeprefix("/").partition("/")

_CODES: Final = {ProtocolError: grpc.StatusCode.INVALID_ARGUMENT, Refused: grpc.StatusCode.PERMISSION_DENIED}

_SHORT: Final = {
    ADDRESS_TYPE: "wds",
    AUTHORIZATION_TYPE: "wads",
    CLUSTER_TYPE: "cds",
    ENDPOINT_TYPE: "eds",
    LISTENER_TYPE: "lds",
    ROUTE_TYPE: "rds",
    SECRET_TYPE: "sds",
}
"""istiod's names of the types in metrics."""

_log = logging.getLogger("ambient.control.discovery")


@dataclass(slots=True, eq=False)
class Client:
    """One open stream. `gateway`: whose proxy it is, "" for that of a node."""

    caller: Caller
    peer: str
    stream: DeltaStream
    opened_unix: float
    gateway: str = ""
    sent: dict[str, str] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    behind_since: float | None = None
    asked: bool = False
    pushed: float = 0.0


class Discovery:
    """The service. Call `changed` after each update of the catalogue."""

    def __init__(
        self,
        catalogue: Catalogue,
        gate: Gate,
        metrics: ControlMetrics,
        *,
        most_streams: int,
        stream_age_s: float,
        patience_s: float,
        waypoints: Waypoints,
    ) -> None:
        """`patience_s`: how long a client may take for its first request, and for reading a response. `waypoints`: who
        serves proxies that say which Gateway they are for."""
        self._waypoints = waypoints
        self._catalogue = catalogue
        self._gate = gate
        self._metrics = metrics
        self._most_streams = most_streams
        self._age_s = stream_age_s
        self._patience_s = patience_s
        self._loud = LogLimit(10)
        self._stopping = False
        self._clients: dict[Client, None] = {}
        self._sequence = 0
        self._random = random.Random()

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What to register with a grpc.aio server."""
        method = grpc.stream_stream_rpc_method_handler(self._serve, request_deserializer=None, response_serializer=None)
        return grpc.method_handlers_generic_handler(_SERVICE, {_NAME: method})

    def changed(self) -> None:
        """The catalogue changed: let every stream look for what it lacks."""
        now = time.monotonic()
        for client in self._clients:
            if client.behind_since is None:
                client.behind_since = now
            client.wake.set()

    def wake_proxies(self) -> None:
        """What waypoints are told has changed by itself."""
        for client in self._clients:
            if client.gateway:
                client.wake.set()

    def stop(self) -> None:
        """End every stream cleanly: clients go elsewhere, or try again, at once."""
        self._stopping = True
        for client in self._clients:
            client.wake.set()

    @property
    def streams(self) -> tuple[Client, ...]:
        """The open streams of nodes. What a waypoint has taken says nothing of what nodes enforce."""
        return tuple(client for client in self._clients if not client.gateway)

    @property
    def clients(self) -> Mapping[str, Client]:
        """The open streams of nodes by caller's name; of several the newest."""
        return {client.caller.name: client for client in self.streams}

    async def _serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        peer = peer_of(context)
        try:
            client = await self._admit(context, peer)
        except Refused as error:
            code = grpc.StatusCode.UNAUTHENTICATED if error.what == "token" else grpc.StatusCode.RESOURCE_EXHAUSTED
            await self._abort(context, code, error, peer)
            return
        except Unavailable as error:
            await self._abort(context, grpc.StatusCode.UNAVAILABLE, error, peer)
            return
        self._clients[client] = None
        self._metrics.streams.set(len(self._clients))
        _log.info("%s (%s) opened a stream", client.caller.name, peer)
        why = "closed by the client"
        try:
            why = await self._run(client, requests, context)
        except MeshError as error:
            why = str(error)
            await self._abort(context, _CODES.get(type(error), grpc.StatusCode.UNAVAILABLE), error, client.caller.name)
        finally:
            del self._clients[client]
            if self._waypoints.close(client.stream):
                self.wake_proxies()
            self._metrics.streams.set(len(self._clients))
            _log.info("%s (%s) stream ended: %s", client.caller.name, peer, why)

    async def _admit(self, context: Any, peer: str) -> Client:
        metadata = context.invocation_metadata() or ()
        gateway = next((value for key, value in metadata if key == GATEWAY_HEADER), None)
        caller = await (self._gate.client(metadata) if gateway is None else self._gate.caller(metadata))
        own = sum(client.caller == caller for client in self._clients)
        if own >= MOST_STREAMS_PER_CLIENT:
            raise Refused("streams", caller.name, f"has {own} open")
        if len(self._clients) >= self._most_streams:
            raise Refused("streams", why=f"{len(self._clients)} are open")
        self._sequence += 1
        if gateway is not None:
            return Client(caller, peer, self._waypoints.open(caller, str(gateway)), time.time(), str(gateway))
        stream = DeltaStream(self._catalogue, node=caller.node, prefix=f"{self._sequence}.")
        return Client(caller, peer, stream, time.time())

    async def _run(self, client: Client, requests: AsyncIterator[bytes], context: Any) -> str:
        """Serve until the client ends the stream or it is too old; gives the reason."""
        loop = asyncio.get_running_loop()
        first = await self._first(requests)
        if first is None:
            return "closed before its first request"
        self._take(client, first)
        reader = asyncio.create_task(self._read(client, requests))
        end = loop.time() + self._age_s * self._random.uniform(0.9, 1.1)
        try:
            while not reader.done() and not self._stopping and loop.time() < end:
                await self._rest(client, reader)
                client.wake.clear()
                await self._push(client, context)
                await self._wait(client, reader, end - loop.time())
            if reader.done():
                reader.result()
                return "closed by the client"
            return "we stop" if self._stopping else "age limit"
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _first(self, requests: AsyncIterator[bytes]) -> bytes | None:
        try:
            async with asyncio.timeout(self._patience_s):
                return await anext(requests, None)
        except TimeoutError:
            raise ProtocolError("discovery stream", why=f"no request within {self._patience_s:g} s") from None

    async def _read(self, client: Client, requests: AsyncIterator[bytes]) -> None:
        async for data in requests:
            self._take(client, data)
            client.wake.set()

    def _take(self, client: Client, data: bytes) -> None:
        request = decode_request(data)
        if request.node is not None and request.node.node_name not in ("", client.caller.node):
            claimed = request.node.node_name[:100]
            raise Refused("node", claimed, f"the token is for node {client.caller.node}")
        self._note(client, request)
        client.asked = client.asked or not request.nonce or bool(request.subscribe) or request.error is not None
        client.stream.receive(request)
        if self._waypoints.heard(client.stream):
            self.wake_proxies()

    def _note(self, client: Client, request: DeltaRequest) -> None:
        kind = request.type_url.rpartition(".")[2][:40]
        if request.error is not None:
            self._metrics.rejects.labels(_SHORT.get(request.type_url, "unknown")).inc()
            _log.warning("%s refuses %s: %s", client.caller.name, kind, request.error[:2000])
        elif request.node is not None:
            _log.info(
                "%s subscribes to %s: %s names, continues from %d versions",
                client.caller.name, kind, len(request.subscribe) or "all", len(request.versions),
            )  # fmt: skip

    async def _rest(self, client: Client, reader: asyncio.Task[None]) -> None:
        """What changes at once after a push waits a little, longer the more clients there are: however fast things
        change, serving everybody leaves time for the rest. A client that asks for something does not wait."""
        end = client.pushed + min(len(self._clients) * REST_S, MOST_REST_S)
        while not (reader.done() or self._stopping or client.asked) and (left := end - time.monotonic()) > 0:
            client.wake.clear()
            await self._wait(client, reader, left)
        client.asked = False

    async def _push(self, client: Client, context: Any) -> None:
        while (response := client.stream.pull()) is not None:
            kind = response.type_url.rpartition(".")[2]
            try:
                async with asyncio.timeout(self._patience_s):
                    await context.write(encode_response(response))
            except TimeoutError:
                raise ProtocolError("discovery stream", why=f"not read for {self._patience_s:g} s") from None
            self._metrics.pushes.labels(_SHORT[response.type_url]).inc()
            client.sent[response.type_url] = response.nonce
            client.pushed = time.monotonic()
            _log.debug(
                "%s gets %d %s, loses %d", client.caller.name, len(response.resources), kind, len(response.removed)
            )
        if client.behind_since is not None and client.stream.acked == self._catalogue.revision:
            self._metrics.convergence.observe(time.monotonic() - client.behind_since)
            client.behind_since = None

    async def _wait(self, client: Client, reader: asyncio.Task[None], timeout_s: float) -> None:
        waker = asyncio.create_task(client.wake.wait())
        try:
            await asyncio.wait({waker, reader}, timeout=max(timeout_s, 0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waker.cancel()

    async def _abort(self, context: Any, code: grpc.StatusCode, error: MeshError, who: str) -> None:
        self._metrics.denied.labels("discovery", code.name).inc()
        if self._loud.allows(time.monotonic()):
            _log.warning("refused a stream of %s: %s%s", who, error, self._loud.note())
        await context.abort(code, str(error))
