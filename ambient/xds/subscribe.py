"""Keep a discovery subscription alive: the thin shell around `ambient.xds.client`, used by ztunnel and by the agent.

State is kept while disconnected and each new stream continues where the last one ended. Root and token files are read
again for every attempt, and a root that is replaced ends the stream that was opened with the old one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final, Literal

from ambient.errors import MeshError
from ambient.xds.channel import (
    ServerSettings,
    as_mesh_error,
    call_metadata,
    connected,
    open_channel,
    root_changed,
)
from ambient.xds.client import Batch, DeltaClient
from ambient.xds.messages import METHOD, DeltaRequest, NodeInfo, encode_request, open_response
from ambient.xds.pace import WithoutCollection, between_others

LARGE: Final = 1000
"""Resources in a response, or versions in a request, that are worth some care."""
FIRST_PAUSE_S: Final = 0.010
SHORT_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 15.0
RESTART_S: Final = 180.0
"""A control plane gone for less is being restarted, and pods that came meanwhile wait for it: pauses stay short."""
HOLD_S: Final = 1.0
"""How long the good part of a refused response waits for the server to send something better."""
_AT_ONCE: Final = frozenset({"UNKNOWN", "CANCELLED", "DEADLINE_EXCEEDED"})


Reason = Literal["", "ConnectionError", "Error", "Reconnect", "Complete"]
"""Why a stream ended, in the words of Istio's metric."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """`connected`: a stream is open. `synced`: every type has been received once. `why`: why it is not connected."""

    state: Literal["connecting", "connected", "synced", "disconnected"]
    why: str = ""
    retry_in_s: float = 0.0
    reason: Reason = ""


OnBatch = Callable[[Batch], Awaitable[None] | None]
OnState = Callable[[StreamState], None]
OnMessage = Callable[[str, int], None]
"""Type URL and size in bytes of each response."""


def _nobody(_url: str, _size: int) -> None:
    """Who does not count messages."""


class Backoff:
    """Pauses between attempts: 10 ms, doubled up to 2 s, after three minutes up to 15 s, each drawn from the upper half
    of its range, so that many clients do not come at once."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.reset()

    def reset(self) -> None:
        self._next = FIRST_PAUSE_S
        self._waited = 0.0

    def pause(self) -> float:
        """Seconds to wait before the next attempt."""
        ceiling = self._next
        self._next = min(ceiling * 2, SHORT_PAUSE_S if self._waited < RESTART_S else LONGEST_PAUSE_S)
        pause = ceiling * self._rng.uniform(0.5, 1.0)
        self._waited += pause
        return pause


async def subscribe(
    settings: ServerSettings,
    node: NodeInfo,
    on_batch: OnBatch,
    on_state: OnState,
    *,
    core: DeltaClient | None = None,
    rng: random.Random | None = None,
    on_message: OnMessage = _nobody,
    hold_s: float = HOLD_S,
) -> None:
    """Run until cancelled. `on_batch` is called (and awaited, if it gives an awaitable) before a response is answered,
    so that an answer means "acted on"; what it raises ends the subscription. `core` carries versions of an earlier
    process; read `core.versions()` in `on_batch` to keep them. `hold_s`: see HOLD_S.
    """
    from grpc.aio import AioRpcError

    client = core or DeltaClient(node)
    backoff = Backoff(rng or random.Random())
    reason: Reason
    while True:
        on_state(StreamState("connecting"))
        stream = _Stream(settings, client, on_batch, on_state, on_message, hold_s, backoff)
        try:
            why, pause, reason = await stream.run(), 0.0, "Complete"
        except AioRpcError as error:
            reason = "Error"
            if error.code().name in _AT_ONCE or stream.answered:
                backoff.reset()
                reason = "Reconnect"
            why, pause = str(as_mesh_error(error, "discovery", settings.target)), backoff.pause()
        except _Consumer as error:
            raise error.cause from None
        except MeshError as error:
            why, pause, reason = str(error), backoff.pause(), "Error" if stream.opened else "ConnectionError"
        # A server that ends every stream at once must not make us spin.
        pause = max(pause, FIRST_PAUSE_S / 2)
        on_state(StreamState("disconnected", why, pause, reason))
        await asyncio.sleep(pause)


class _Consumer(Exception):
    """What `on_batch` raised: not the stream's fault, so not to be retried."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Stream:
    """One stream from its first request to its end. `opened`: there was a connection; `answered`: and a response."""

    def __init__(
        self,
        settings: ServerSettings,
        client: DeltaClient,
        on_batch: OnBatch,
        on_state: OnState,
        on_message: OnMessage,
        hold_s: float,
        backoff: Backoff,
    ) -> None:
        self._settings = settings
        self._client = client
        self._on_batch = on_batch
        self._on_state = on_state
        self._on_message = on_message
        self._hold_s = hold_s
        self._backoff = backoff
        self._outgoing: asyncio.Queue[DeltaRequest | None] = asyncio.Queue()
        self._synced = False
        self.opened = False
        self.answered = False

    async def run(self) -> str:
        """Until the server finishes the stream or the root is replaced, with which of both; raises otherwise."""
        settings, client = self._settings, self._client
        channel = open_channel(settings)
        root = asyncio.ensure_future(root_changed(settings.root))
        reading: asyncio.Future[Any] | None = None
        try:
            await connected(channel, settings.target)
            self.opened = True
            for request in client.open():
                self._outgoing.put_nowait(request)
            client.on_request = self._outgoing.put_nowait
            call = channel.stream_stream(METHOD, request_serializer=None, response_deserializer=None)(
                self._requests(), metadata=tuple(call_metadata(settings))
            )
            self._on_state(StreamState("connected"))
            while True:
                reading = reading or asyncio.ensure_future(call.read())
                waiting: set[asyncio.Future[Any]] = {reading, root}
                patience = self._hold_s if client.holding else None
                await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    data, reading = reading.result(), None
                    if not isinstance(data, bytes):
                        return "the server ended the stream"
                    await self._take(data)
                elif root.done():
                    return "the root certificate was replaced"
                else:
                    for batch in client.release():
                        await self._consume(batch)
                    self._acted()
        finally:
            client.on_request = None
            # gRPC's own task waits for our next request, also when the server has ended the call.
            self._outgoing.put_nowait(None)
            for task in (root, reading):
                if task is not None:
                    task.cancel()
            await channel.close(None)
            await asyncio.gather(*(task for task in (root, reading) if task is not None), return_exceptions=True)

    async def _take(self, data: bytes) -> None:
        """Read, act on and answer one response; other tasks run in between, however large it is."""
        response = open_response(data)
        self._on_message(response.type_url, len(data))
        with WithoutCollection() if len(response.resources) > LARGE else nullcontext():
            batch, answer = await between_others(self._client.take(response))
        self.answered = True
        self._backoff.reset()
        await self._consume(batch)
        self._outgoing.put_nowait(answer)
        self._acted()

    async def _consume(self, batch: Batch) -> None:
        try:
            waiting = self._on_batch(batch)
            if waiting is not None:
                await waiting
        except Exception as error:
            raise _Consumer(error) from error

    def _acted(self) -> None:
        self._client.acted()
        if self._client.complete and not self._synced:
            self._synced = True
            self._on_state(StreamState("synced"))

    async def _requests(self) -> AsyncIterator[bytes]:
        while (request := await self._outgoing.get()) is not None:
            # The versions of a whole mesh take a while to write.
            large = len(request.versions) > LARGE
            yield await asyncio.to_thread(encode_request, request) if large else encode_request(request)
