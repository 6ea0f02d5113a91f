"""An Envoy in a network namespace of its own that is told everything by discovery, as a waypoint's is, and asked.

Nobody can call it: what is looked at is what it takes and what it refuses.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio

from ambient.waypoint.agent.envoy import Envoy
from ambient.waypoint.agent.identity import OwnIdentity
from ambient.waypoint.agent.server import SECRETS_METHOD
from ambient.waypoint.bootstrap import Identification, bootstrap
from ambient.waypoint.resources import ENVOY_ORDER, ENVOY_TYPES, Named
from ambient.waypoint.typed import SECRET_TYPE
from ambient.waypoint.wire import encode
from ambient.xds.catalogue import Catalogue
from ambient.xds.messages import METHOD, decode_request, encode_response
from ambient.xds.server import DeltaStream, Order
from tests.support.authority import Authority
from tests.support.waiting import PATIENCE_S, eventually

WHO = Identification("shop", "waypoint", "waypoint-1", "10.1.1.1")
NAME = "spiffe://cluster.local/ns/shop/sa/waypoint"


class Source(Protocol):
    """Who tells it: streams, and whether there is more to be told for what was heard."""

    def open_stream(self) -> DeltaStream: ...

    def heard(self, stream: DeltaStream) -> bool: ...

    def close(self, stream: DeltaStream) -> bool: ...


class Told:
    """A source of whatever it is given."""

    def __init__(self) -> None:
        self.catalogue = Catalogue(types=ENVOY_TYPES)

    def tell(self, found: Iterable[Named]) -> None:
        made = [encode(*one) for one in found]
        self.catalogue.update(made, self.catalogue.revision + 1)

    def open_stream(self) -> DeltaStream:
        return DeltaStream(self.catalogue, order=ENVOY_ORDER)

    def heard(self, stream: DeltaStream) -> bool:
        return False

    def close(self, stream: DeltaStream) -> bool:
        return False


class FedEnvoy:
    """`look` after each change of the source; `stream` is its newest one."""

    def __init__(self, source: Source, admin: Envoy) -> None:
        self._source = source
        self._admin = admin
        self._wake = asyncio.Event()
        self._heard = asyncio.Event()
        self.stream: DeltaStream | None = None

    def look(self) -> None:
        self._wake.set()

    async def settled(self) -> dict[str, str]:
        """Once it has taken or refused everything: what it refuses, by name."""
        self.look()
        async with asyncio.timeout(3 * PATIENCE_S):
            while self.stream is None or not self.stream.complete:
                self._heard.clear()
                await self._heard.wait()
        return self.stream.nacks

    async def dump(self, what: str) -> list[dict[str, Any]]:
        """A part of its configuration as it is in force, such as dynamic_route_configs."""
        found = json.loads(await self._admin.ask("GET", f"/config_dump?resource={what}"))
        configs: list[dict[str, Any]] = found.get("configs", [])
        return configs

    async def serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        stream = self.stream = self._source.open_stream()

        async def read() -> None:
            async for data in requests:
                stream.receive(decode_request(data))
                self._source.heard(stream)
                self._wake.set()
                self._heard.set()

        reader = asyncio.create_task(read())
        try:
            while not reader.done():
                await self._wake.wait()
                self._wake.clear()
                while (response := stream.pull()) is not None:
                    await context.write(encode_response(response))
        finally:
            reader.cancel()
            self._source.close(stream)


async def _carry(stream: DeltaStream, requests: AsyncIterator[bytes], context: Any) -> None:
    async for data in requests:
        stream.receive(decode_request(data))
        while (response := stream.pull()) is not None:
            await context.write(encode_response(response))


def _handler(method: str, serve: Any) -> grpc.GenericRpcHandler[bytes, bytes]:
    service, _, name = method.removeprefix("/").partition("/")
    made = grpc.stream_stream_rpc_method_handler(serve, request_deserializer=None, response_serializer=None)
    return grpc.method_handlers_generic_handler(service, {name: made})


@asynccontextmanager
async def fed_envoy(source: Source, folder: Path) -> AsyncIterator[FedEnvoy]:
    """From when it has asked for something."""
    admin = Envoy(Path("envoy"), folder, threads=1, drain_s=1)
    fed = FedEnvoy(source, admin)
    identity = OwnIdentity(NAME, Authority().sign, clock=time.time, draw=lambda: 0.0)
    issued = asyncio.create_task(identity.run())
    await eventually(lambda: identity.secrets.filled)

    async def secrets(requests: AsyncIterator[bytes], context: Any) -> None:
        await _carry(DeltaStream(identity.secrets, order=Order((SECRET_TYPE,))), requests, context)

    server = grpc.aio.server(options=(("grpc.max_receive_message_length", 64 << 20),))
    server.add_generic_rpc_handlers((_handler(METHOD, fed.serve), _handler(SECRETS_METHOD, secrets)))
    assert server.add_insecure_port(f"unix:{folder / 'a'}")
    await server.start()
    file = folder / "envoy.json"
    file.write_text(json.dumps(bootstrap(WHO, agent_socket=str(folder / "a"), admin_socket=str(admin.admin_socket))))
    binary = str(Path(sys.executable).with_name("envoy"))
    argv = ["-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    with (folder / "envoy.log").open("wb") as log:
        # However the test ends, it ends with it.
        run = ("unshare", "-n", "--", "setpriv", "--pdeathsig", "KILL", "--", binary, *argv)
        process = await asyncio.create_subprocess_exec(*run, stdout=log, stderr=log)
    try:
        await eventually(lambda: fed.stream is not None or process.returncode is not None)
        assert process.returncode is None, (folder / "envoy.log").read_text(errors="replace")[-3000:]
        yield fed
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await server.stop(None)
        issued.cancel()
        await asyncio.gather(issued, return_exceptions=True)
