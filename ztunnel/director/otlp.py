"""Sends spans to an OpenTelemetry receiver over HTTP: a bounded queue, one request at a time, patience, losses counted.

Works on the flow records as workers packed them; they are unpacked in the thread that sends. When the receiver does
not keep up, what is newest is dropped: connections never wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import json
import logging
import random
import ssl
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol
from urllib.parse import urlsplit

from ambient.errors import InvalidInput
from ztunnel.director.spans import export_request, sampled, span_of
from ztunnel.director.tracing import Tracing
from ztunnel.ipc.flows import unpack

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
_RETRYABLE: Final = frozenset({429, 502, 503, 504})
"""Answers after which the same request may be sent again (OTLP specification, retryable response codes)."""

_ANSWER_LIMIT: Final = 64 << 10

_log = logging.getLogger("otlp")


class Counts(Protocol):
    """Who keeps the figures: spans that arrived, and flow records that never will, by reason."""

    def spans_sent(self, count: int) -> None: ...
    def spans_lost(self, count: int, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 0: nobody answered. `after_s`: how long the receiver wants to be left alone."""

    status: int
    spans: int = 0
    rejected: int = 0
    after_s: float = 0.0
    why: str = ""


class Exporter:
    """`waiting`: flow records in the queue."""

    def __init__(
        self,
        tracing: Tracing,
        counts: Counts,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._tracing = tracing
        self._counts = counts
        self._sleep = sleep
        self._draw = draw
        self._queue: deque[tuple[bytes, int]] = deque()
        self._full = asyncio.Event()
        self.waiting = 0

    def offer(self, packed: bytes, count: int) -> None:
        """Take `count` packed flow records, if there is room for all of them."""
        if self.waiting + count > self._tracing.queue:
            self._counts.spans_lost(count, "queue")
            return
        self._queue.append((packed, count))
        self.waiting += count
        if self.waiting >= self._tracing.batch:
            self._full.set()

    async def run(self) -> None:
        """Send what there is every few seconds, or as soon as a batch is full, for ever."""
        while True:
            waiting = asyncio.ensure_future(self._sleep(self._tracing.delay_s))
            full = asyncio.ensure_future(self._full.wait())
            try:
                await asyncio.wait({waiting, full}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
                full.cancel()
            while self._queue:
                await self._deliver(self._take())

    async def flush(self, within_s: float) -> None:
        """Send what is left, at shutdown; what the receiver has not taken in time is lost and counted."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while self._queue:
            batch, left = self._take(), until - loop.time()
            if left <= 0 or not self._settled(batch, await _beside(partial(self._post, batch, left))):
                self._counts.spans_lost(_count(batch), "shutdown")

    def _take(self) -> list[tuple[bytes, int]]:
        batch: list[tuple[bytes, int]] = []
        while self._queue and (not batch or _count(batch) + self._queue[0][1] <= self._tracing.batch):
            batch.append(self._queue.popleft())
        self.waiting -= _count(batch)
        if self.waiting < self._tracing.batch:
            self._full.clear()
        return batch

    async def _deliver(self, batch: list[tuple[bytes, int]]) -> None:
        """Until the receiver has it or will never take it. Meanwhile the queue fills up, and no further."""
        pause = FIRST_PAUSE_S
        try:
            while not self._settled(
                batch, answer := await asyncio.to_thread(self._post, batch, self._tracing.timeout_s)
            ):
                level = logging.WARNING if pause == FIRST_PAUSE_S else logging.DEBUG
                _log.log(level, "%s: %s; again in %.0f s", self._tracing.url, answer.why, pause)
                await self._sleep(max(answer.after_s, pause * (0.5 + self._draw() / 2)))
                pause = min(LONGEST_PAUSE_S, pause * 2)
        except asyncio.CancelledError:
            # What is under way may arrive twice; what is lost is lost for good.
            self._queue.extendleft(reversed(batch))
            self.waiting += _count(batch)
            raise

    def _settled(self, batch: list[tuple[bytes, int]], answer: Answer) -> bool:
        """Account for what became of a batch; False: the same request may be sent again."""
        if not answer.status or answer.status in _RETRYABLE:
            return False
        if 200 <= answer.status < 300:
            self._counts.spans_sent(answer.spans)
            if answer.rejected:
                self._counts.spans_lost(answer.rejected, "rejected")
        else:
            _log.warning("%s: %s; %d flow records are lost", self._tracing.url, answer.why, _count(batch))
            self._counts.spans_lost(_count(batch), "refused")
        return True

    def _post(self, batch: list[tuple[bytes, int]], timeout_s: float) -> Answer:
        """One request (in a thread of its own)."""
        tracing = self._tracing
        try:
            records = [record for packed, _ in batch for record in unpack(packed) if record.event != "opened"]
        except InvalidInput as error:
            return Answer(400, why=str(error))
        spans = [span for record in records if sampled(span := span_of(record, random.getrandbits), tracing.ratio)]
        if not spans:
            return Answer(204)
        body = json.dumps(export_request(spans, dict(tracing.resource)), separators=(",", ":")).encode()
        headers = {"content-type": "application/json", **dict(tracing.headers)}
        if tracing.gzip:
            body, headers["content-encoding"] = gzip.compress(body, 1), "gzip"
        try:
            return _request(tracing, body, headers, timeout_s, len(spans))
        except Exception as error:
            # Whatever it is, waiting for the thread must not be in vain.
            return Answer(0, why=str(error) or type(error).__name__)


async def _beside(call: Callable[[], Answer]) -> Answer:
    """Run it in a thread that the end of the process does not wait for, as it would for an executor's."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Answer] = loop.create_future()

    def settle(answer: Answer) -> None:
        if not answered.done():
            answered.set_result(answer)

    def run() -> None:
        answer = call()
        # The loop may be closed by now.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, answer)

    threading.Thread(target=run, daemon=True, name="otlp").start()
    return await answered


def _request(tracing: Tracing, body: bytes, headers: dict[str, str], timeout_s: float, spans: int) -> Answer:
    url = urlsplit(tracing.url)
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        context = ssl.create_default_context(cafile=tracing.ca_file or None)
        connection = http.client.HTTPSConnection(url.hostname or "", url.port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=timeout_s)
    try:
        connection.request("POST", url.path + (f"?{url.query}" if url.query else ""), body, headers)
        response = connection.getresponse()
        rejected = min(spans, max(0, _rejected(response.read(_ANSWER_LIMIT))))
        after = response.getheader("retry-after", "")
        return Answer(
            response.status,
            spans - rejected,
            rejected,
            float(after) if after.isascii() and after.isdigit() and len(after) < 6 else 0.0,
            f"{response.status} {response.reason}",
        )
    finally:
        connection.close()


def _rejected(body: bytes) -> int:
    """How many spans a receiver did not take out of a request it accepted (`partialSuccess`)."""
    try:
        return int(json.loads(body)["partialSuccess"]["rejectedSpans"])
    except (ValueError, KeyError, TypeError):
        return 0


def _count(batch: list[tuple[bytes, int]]) -> int:
    return sum(count for _, count in batch)
