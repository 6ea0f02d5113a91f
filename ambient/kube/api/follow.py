"""Runs one `ListWatch` against an API server: sends what it asks, feeds it what comes, hands on what changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ambient.errors import MeshError, ProtocolError
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import NotThere
from ambient.kube.api.lines import Lines
from ambient.kube.api.listwatch import Ask, Change, ListWatch, Step
from ambient.waking import woken

SLICE_S: Final = 0.002
"""How long reading may keep everything else of the process waiting."""


class _Page(msgspec.Struct):
    """A list whose items are decoded one by one, so that a page does not stop the process."""

    metadata: dict[str, Any]
    items: list[msgspec.Raw] | None = None


class Follower:
    """`deliver` is called with each change as it comes, `settled` when there is no more at the moment.

    `alive_at`: when the server was last heard (monotonic seconds, 0 = never). `opened` counts streams.
    """

    def __init__(
        self,
        client: ApiClient,
        core: ListWatch,
        deliver: Callable[[Change], None],
        settled: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self.core = core
        self._deliver = deliver
        self._settled = settled
        self._clock = clock
        self._slice_began = 0.0
        self._hurry = asyncio.Event()
        self.alive_at = 0.0
        self.events = 0
        self.opened = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            ask = self.core.ask()
            if ask.delay_s:
                await self._pause(ask.delay_s)
            try:
                await self._do(ask)
            except MeshError as error:
                self.core.failed(error)
            self._settled()

    def hurry(self) -> None:
        """The server was heard by somebody else: do not wait any longer, if it is for that."""
        if self.core.trouble and not self.core.forbidden:
            self._hurry.set()

    async def _pause(self, seconds: float) -> None:
        self._hurry.clear()
        await woken(self._hurry, seconds)

    async def _do(self, ask: Ask) -> None:
        match ask.step:
            case Step.FIND:
                await self._hand_on(self.core.found(await self._discovered(ask)))
            case Step.PAGE:
                await self._page(ask)
            case Step.STREAM | Step.WATCH:
                await self._stream(ask)

    async def _discovered(self, ask: Ask) -> dict[str, Any] | None:
        try:
            found = await self._client.call("GET", ask.path)
        except NotThere:
            found = None
        self.alive_at = self._clock()
        return found

    async def _page(self, ask: Ask) -> None:
        data = await self._client.fetch("GET", ask.path, query=ask.query)
        try:
            page = msgspec.json.decode(data, type=_Page)
            items = []
            for raw in page.items or ():
                items.append(msgspec.json.decode(raw))
                await self._breathe()
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise ProtocolError("list", ask.path, str(error)) from None
        self.alive_at = self._clock()
        await self._hand_on(self.core.page({"metadata": page.metadata, "items": items}))

    async def _stream(self, ask: Ask) -> None:
        lines = Lines()
        began = self._clock()
        async with self._client.stream(ask.path, query=ask.query) as reader:
            self.opened += 1
            self.core.opened()
            self._settled()
            while True:
                try:
                    async with asyncio.timeout(self.core.idle_s):
                        data = await reader.readany()
                except TimeoutError:
                    self.core.silent()
                    return
                if not data:
                    self.core.ended(self._clock() - began)
                    return
                self.alive_at = self._clock()
                for line in lines.feed(data):
                    await self._line(line)
                self._settled()

    async def _line(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ProtocolError("watch", self.core.kind, f"not JSON: {error}") from None
        self.events += 1
        await self._hand_on(self.core.event(event))

    async def _hand_on(self, changes: list[Change]) -> None:
        for change in changes:
            self._deliver(change)
            await self._breathe()

    async def _breathe(self) -> None:
        now = time.perf_counter()
        if now - self._slice_began > SLICE_S:
            await asyncio.sleep(0)
            self._slice_began = time.perf_counter()
