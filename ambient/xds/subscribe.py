"""Keep a discovery subscription alive: the thin shell around `ambient.xds.client`, used by ztunnel and by the agent.

State is kept while disconnected and each new stream continues where the last one ended. Root and token files are read
again for every attempt.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

import grpc
import grpc.aio

from ambient.errors import MeshError
from ambient.xds.channel import ServerSettings, as_mesh_error, call_metadata, connected, open_channel
from ambient.xds.client import Batch, DeltaClient
from ambient.xds.messages import METHOD, DeltaRequest, NodeInfo, decode_response, encode_request

FIRST_PAUSE_S: Final = 0.010
SHORT_PAUSE_S: Final = 2.0
LONGEST_PAUSE_S: Final = 15.0
RESTART_S: Final = 180.0
"""A control plane gone for less is being restarted, and pods that came meanwhile wait for it: pauses stay short."""
_AT_ONCE: Final = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED})


@dataclass(frozen=True, slots=True)
class StreamState:
    """`connected`: a stream is open. `synced`: every type has been received once. `why`: why it is not connected."""

    state: Literal["connecting", "connected", "synced", "disconnected"]
    why: str = ""
    retry_in_s: float = 0.0


OnBatch = Callable[[Batch], Awaitable[None] | None]
OnState = Callable[[StreamState], None]


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
) -> None:
    """Run until cancelled. `on_batch` is called (and awaited, if it gives an awaitable) before a response is answered,
    so that an answer means "acted on"; what it raises ends the subscription. `core` carries versions of an earlier
    process; read `core.versions()` in `on_batch` to keep them.
    """
    client = core or DeltaClient(node)
    backoff = Backoff(rng or random.Random())
    while True:
        on_state(StreamState("connecting"))
        why = "the server ended the stream"
        try:
            await _stream(settings, client, on_batch, on_state, backoff)
            pause = 0.0
        except grpc.aio.AioRpcError as error:
            if error.code() in _AT_ONCE:
                backoff.reset()
            why, pause = str(as_mesh_error(error, "discovery", settings.target)), backoff.pause()
        except _Consumer as error:
            raise error.cause from None
        except MeshError as error:
            why, pause = str(error), backoff.pause()
        # A server that ends every stream at once must not make us spin.
        pause = max(pause, FIRST_PAUSE_S / 2)
        on_state(StreamState("disconnected", why, pause))
        await asyncio.sleep(pause)


class _Consumer(Exception):
    """What `on_batch` raised: not the stream's fault, so not to be retried."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


async def _stream(
    settings: ServerSettings, client: DeltaClient, on_batch: OnBatch, on_state: OnState, backoff: Backoff
) -> None:
    """One stream until its end: returns when the server finishes it cleanly, raises otherwise."""
    outgoing: asyncio.Queue[DeltaRequest] = asyncio.Queue()
    for request in client.open():
        outgoing.put_nowait(request)
    channel = open_channel(settings)
    try:
        await connected(channel, settings.target)
        call = channel.stream_stream(METHOD, request_serializer=encode_request, response_deserializer=None)(
            _requests(outgoing), metadata=tuple(call_metadata(settings))
        )
        synced = False
        on_state(StreamState("connected"))
        async for data in call:
            batch, answer = client.receive(decode_response(data))
            backoff.reset()
            try:
                waiting = on_batch(batch)
                if waiting is not None:
                    await waiting
            except Exception as error:
                raise _Consumer(error) from error
            outgoing.put_nowait(answer)
            if client.complete and not synced:
                synced = True
                on_state(StreamState("synced"))
    finally:
        await channel.close(None)


async def _requests(outgoing: asyncio.Queue[DeltaRequest]) -> AsyncIterator[DeltaRequest]:
    while True:
        yield await outgoing.get()
