"""A real Envoy that is told everything by discovery, as a waypoint's is: here in this process, without agent or mesh.

It is in a network namespace of its own, so nobody can call it: what is looked at is what it takes and what it refuses.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from ambient.errors import MeshError, Unavailable
from ambient.waypoint.agent.envoy import Envoy
from ambient.waypoint.agent.identity import OwnIdentity
from ambient.waypoint.agent.server import SECRETS_METHOD, stream_handler
from ambient.waypoint.bootstrap import Identification, bootstrap
from ambient.waypoint.typed import SECRET_TYPE
from ambient.xds.messages import METHOD, decode_request, encode_response
from ambient.xds.server import DeltaStream, Order

WHO: Final = Identification("shop", "waypoint", "waypoint-1", "10.1.1.1")
IDENTITY: Final = "spiffe://cluster.local/ns/shop/sa/waypoint"
PATIENCE_S: Final = 120.0
_BINARY: Final = Path(sys.executable).with_name("envoy")


class Source(Protocol):
    """Who tells it: streams, and whether there is more to be told for what was heard."""

    def open_stream(self) -> DeltaStream: ...

    def heard(self, stream: DeltaStream) -> bool: ...

    def close(self, stream: DeltaStream) -> bool: ...


class FedEnvoy:
    """`look` after each change of the source; `stream` is its newest one. `asked`: it has been
    asked for something. `octets`: sent so far. `failure`: why nothing more is to be expected of it."""

    def __init__(self, source: Source, admin: Envoy) -> None:
        self._source = source
        self._admin = admin
        self._wake = asyncio.Event()
        self._heard = asyncio.Event()
        self.stream: DeltaStream | None = None
        self.asked = asyncio.Event()
        self.octets = 0
        self.failure = ""

    def look(self) -> None:
        self._wake.set()

    async def settled(self, patience_s: float = PATIENCE_S) -> dict[str, str]:
        """Once it has taken or refused everything: what it refuses, by name. Raises Unavailable."""
        self.look()
        try:
            async with asyncio.timeout(patience_s):
                while not self.failure and (self.stream is None or not self.stream.complete):
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            said = "nothing was asked for" if self.stream is None else f"refused: {self.stream.nacks}"
            raise Unavailable("waited in vain until", "Envoy has taken everything", said) from None
        if self.failure or self.stream is None:
            raise Unavailable("Envoy", why=self.failure)
        return self.stream.nacks

    def fail(self, why: str) -> None:
        """Nobody need wait any longer."""
        self.failure = why
        self._heard.set()

    async def dump(self, what: str) -> list[dict[str, Any]]:
        """A part of its configuration as it is in force, such as dynamic_route_configs."""
        found = json.loads(await self._admin.ask("GET", f"/config_dump?resource={what}"))
        configs: list[dict[str, Any]] = found.get("configs", [])
        return configs

    async def serve(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Discovery, as a method of gRPC."""
        stream = self.stream = self._source.open_stream()
        self.asked.set()

        async def read() -> None:
            async for data in requests:
                stream.receive(decode_request(data))
                self._source.heard(stream)
                self._wake.set()
                self._heard.set()

        reader = asyncio.create_task(read())
        reader.add_done_callback(lambda _: self._wake.set())
        try:
            while not reader.done():
                await self._wake.wait()
                self._wake.clear()
                while (response := stream.pull()) is not None:
                    data = encode_response(response)
                    self.octets += len(data)
                    await context.write(data)
                # What needs no response is had from here on, and no answer will come that says so.
                self._heard.set()
            reader.result()
        except MeshError as error:
            self.fail(f"its stream ended: {error}")
            raise
        finally:
            reader.cancel()
            self._source.close(stream)


@asynccontextmanager
async def fed_envoy(
    source: Source, folder: Path, sign: Callable[[str, str], Awaitable[list[str]]]
) -> AsyncIterator[FedEnvoy]:
    """From when it has asked for something. `sign`: who gives it its certificate. Raises Unavailable with what it says
    when it ends before."""
    admin = Envoy(_BINARY, folder, threads=1, drain_s=1)
    fed = FedEnvoy(source, admin)
    identity = OwnIdentity(IDENTITY, sign)

    async def secrets(requests: AsyncIterator[bytes], context: Any) -> None:
        stream = DeltaStream(identity.secrets, order=Order((SECRET_TYPE,)))
        async for data in requests:
            stream.receive(decode_request(data))
            while (response := stream.pull()) is not None:
                await context.write(encode_response(response))

    certified = asyncio.Event()
    identity.listeners.append(certified.set)
    issued = asyncio.create_task(identity.run())
    await certified.wait()
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", 64 << 20),))
    server.add_generic_rpc_handlers((stream_handler(METHOD, fed.serve), stream_handler(SECRETS_METHOD, secrets)))
    server.add_insecure_port(f"unix:{folder / 'a'}")
    await server.start()
    file = folder / "envoy.json"
    file.write_text(json.dumps(bootstrap(WHO, agent_socket=str(folder / "a"), admin_socket=str(admin.admin_socket))))
    argv = ["-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    with (folder / "envoy.log").open("wb") as log:
        # However we end, it ends with us.
        run = ("unshare", "-n", "--", "setpriv", "--pdeathsig", "KILL", "--", str(_BINARY), *argv)
        process = await asyncio.create_subprocess_exec(*run, stdout=log, stderr=log)
    ended = asyncio.create_task(process.wait())
    ended.add_done_callback(lambda _: fed.fail(f"it ended: {_last_words(folder)}"))
    asked = asyncio.create_task(fed.asked.wait())
    try:
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise Unavailable("Envoy ended", why=_last_words(folder))
        yield fed
    finally:
        asked.cancel()
        with suppress(ProcessLookupError):
            process.kill()
        await ended
        await server.stop(None)
        issued.cancel()
        await asyncio.gather(issued, return_exceptions=True)


def _last_words(folder: Path) -> str:
    return (folder / "envoy.log").read_text(errors="replace")[-3000:]
