"""Who waits until an Envoy has taken everything is told when it has, whatever comes last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Literal

from ambient.waypoint.agent.envoy import Envoy
from ambient.xds.catalogue import Catalogue
from ambient.xds.messages import DeltaRequest, DeltaResponse
from ambient.xds.server import DeltaStream
from bench.fed_envoy import FedEnvoy


class Talk(DeltaStream):
    """One response, and then it is found out that there is no more to say."""

    def __init__(self) -> None:
        super().__init__(Catalogue())
        self._said, self._done = False, False

    def receive(self, request: DeltaRequest) -> None:
        pass

    def pull(self) -> DeltaResponse | None:
        if self._said:
            self._done = True
            return None
        self._said = True
        return DeltaResponse(type_url="type", nonce="1")

    @property
    def complete(self) -> bool:
        return self._done


class Told:
    def __init__(self, stream: DeltaStream) -> None:
        self._stream = stream

    def open_stream(self) -> DeltaStream:
        return self._stream

    def heard(self, stream: DeltaStream) -> bool:
        return False

    def close(self, stream: DeltaStream) -> bool:
        return False


class SlowLine:
    """Writes once the answer has been read."""

    def __init__(self) -> None:
        self.writing, self.read = asyncio.Event(), asyncio.Event()

    async def write(self, data: bytes) -> None:
        self.writing.set()
        await self.read.wait()


class Watched(FedEnvoy):
    """`waits`: somebody waits until it has taken everything, and was told that it had not."""

    def __init__(self, source: Told, admin: Envoy) -> None:
        super().__init__(source, admin)
        self.waits = asyncio.Event()
        self._heard = Watched.Heard(self.waits)

    class Heard(asyncio.Event):
        def __init__(self, waits: asyncio.Event) -> None:
            super().__init__()
            self._waits = waits

        async def wait(self) -> Literal[True]:
            self._waits.set()
            return await super().wait()


def test_the_last_answer_may_be_heard_before_what_it_answers_was_written() -> None:
    async def scenario() -> None:
        line, admin = SlowLine(), Envoy.__new__(Envoy)
        envoy = Watched(Told(Talk()), admin)

        async def requests() -> AsyncIterator[bytes]:
            yield b""
            await line.writing.wait()
            yield b""
            waiting.set()
            await asyncio.Event().wait()

        async def settled() -> dict[str, str]:
            await waiting.wait()
            return await envoy.settled(patience_s=20)

        async def write() -> None:
            await waiting.wait()
            # He has looked, and looks again when he is told.
            await envoy.waits.wait()
            line.read.set()

        waiting = asyncio.Event()
        context: Any = line
        serving = asyncio.create_task(envoy.serve(requests(), context))
        found, _ = await asyncio.gather(settled(), write())
        assert found == {}
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(scenario())
