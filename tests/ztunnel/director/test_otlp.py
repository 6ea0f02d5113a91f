"""Spans on their way to a real receiver: whole, patient, bounded, and every loss counted."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from tests.support.flow_records import packed
from tests.support.otlp_receiver import Receiver
from tests.support.waiting import eventually
from tests.ztunnel.director.test_spans import record
from ztunnel.director.otlp import Exporter
from ztunnel.director.tracing import Tracing, read_tracing


class Counts:
    def __init__(self) -> None:
        self.sent = 0
        self.lost: Counter[str] = Counter()

    def spans_sent(self, count: int) -> None:
        self.sent += count

    def spans_lost(self, count: int, reason: str) -> None:
        self.lost[reason] += count


def flows(ended: int, opened: int = 0) -> tuple[bytes, int]:
    records = [record() for _ in range(ended)] + [record(event="opened") for _ in range(opened)]
    return packed(records), len(records)


Scene = Callable[[Receiver, Tracing, Counts], Awaitable[None]]


def scene(play: Scene) -> Callable[[], None]:
    def run() -> None:
        with Receiver() as receiver:
            env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "1"}
            tracing = read_tracing(env, node="n1", pod="")
            assert tracing is not None
            asyncio.run(play(receiver, tracing, Counts()))  # type: ignore[arg-type]

    run.__name__ = play.__name__
    return run


class Running:
    """An exporter at work whose pauses are noted, not kept."""

    def __init__(self, tracing: Tracing, counts: Counts) -> None:
        self.pauses: list[float] = []
        self.exporter = Exporter(tracing, counts, sleep=self._sleep, draw=lambda: 1.0)

    async def _sleep(self, seconds: float) -> None:
        if seconds >= 0.01:
            self.pauses.append(seconds)
        await asyncio.sleep(0)

    async def __aenter__(self) -> Running:
        self._task = asyncio.ensure_future(self.exporter.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


@scene
async def test_ended_connections_arrive_as_spans_under_one_resource(
    receiver: Receiver, tracing: Tracing, counts: Counts
) -> None:
    async with Running(tracing, counts) as running:
        running.exporter.offer(*flows(3, opened=3))
        await eventually(lambda: counts.sent == 3)
    assert len(receiver.spans) == 3
    assert receiver.resources == [{"service.name": "ztunnel", "k8s.node.name": "n1"}]
    assert receiver.requests[0][":path"] == "/v1/traces"
    assert not counts.lost


@scene
async def test_headers_and_compression_are_used(receiver: Receiver, tracing: Tracing, counts: Counts) -> None:
    tracing = replace(tracing, gzip=True, headers=(("authorization", "Bearer abc"),))
    async with Running(tracing, counts) as running:
        running.exporter.offer(*flows(1))
        await eventually(lambda: counts.sent == 1)
    assert receiver.requests[0]["authorization"] == "Bearer abc"
    assert receiver.requests[0]["content-encoding"] == "gzip"


@scene
async def test_a_busy_receiver_is_asked_again_later_and_later_and_nothing_is_lost(
    receiver: Receiver, tracing: Tracing, counts: Counts
) -> None:
    receiver.answers = [(503, {}, b""), (429, {"retry-after": "7"}, b""), (502, {}, b""), (504, {}, b"")]
    async with Running(tracing, counts) as running:
        running.exporter.offer(*flows(2))
        await eventually(lambda: counts.sent == 2)
        assert running.pauses == [1.0, 7.0, 4.0, 8.0]
    assert len(receiver.spans) == 2
    assert not counts.lost


@scene
async def test_what_a_receiver_refuses_is_not_sent_again_but_counted(
    receiver: Receiver, tracing: Tracing, counts: Counts
) -> None:
    receiver.answers = [(400, {}, b""), (200, {}, b'{"partialSuccess":{"rejectedSpans":"1"}}')]
    async with Running(tracing, counts) as running:
        running.exporter.offer(*flows(3))
        await eventually(lambda: counts.lost == {"refused": 3})
        running.exporter.offer(*flows(3))
        await eventually(lambda: counts.sent == 2)
    assert counts.lost == {"refused": 3, "rejected": 1}
    assert len(receiver.requests) == 2


@scene
async def test_a_receiver_cannot_have_refused_less_than_nothing(
    receiver: Receiver, tracing: Tracing, counts: Counts
) -> None:
    receiver.answers = [(200, {}, b'{"partialSuccess":{"rejectedSpans":"-7"}}')]
    async with Running(tracing, counts) as running:
        running.exporter.offer(*flows(3))
        await eventually(lambda: counts.sent)
    assert counts.sent == 3
    assert not counts.lost


@scene
async def test_when_nobody_answers_the_queue_ends_and_the_newest_are_dropped_and_counted(
    receiver: Receiver, tracing: Tracing, counts: Counts
) -> None:
    tracing = replace(tracing, url="http://127.0.0.1:1/v1/traces", queue=10, batch=4)
    async with Running(tracing, counts) as running:
        for _ in range(10):
            running.exporter.offer(*flows(3))
        assert running.exporter.waiting == 9
        assert counts.lost == {"queue": 21}
        await eventually(lambda: len(running.pauses) >= 3)
    assert counts.sent == 0
    # The batch that was under way is back in its place.
    assert running.exporter.waiting == 9
    await running.exporter.flush(0.5)
    assert counts.lost == {"queue": 21, "shutdown": 9}
    assert not receiver.requests


@scene
async def test_a_full_batch_does_not_wait_for_its_time(receiver: Receiver, tracing: Tracing, counts: Counts) -> None:
    exporter = Exporter(replace(tracing, batch=4, delay_s=3600.0), counts)
    task = asyncio.ensure_future(exporter.run())
    for _ in range(3):
        exporter.offer(*flows(2))
    await eventually(lambda: counts.sent == 6)
    task.cancel()
    await asyncio.wait({task})
    assert [len(receiver.requests), len(receiver.spans)] == [2, 6]


@scene
async def test_what_is_left_at_the_end_is_sent(receiver: Receiver, tracing: Tracing, counts: Counts) -> None:
    exporter = Exporter(tracing, counts)
    exporter.offer(*flows(2))
    await exporter.flush(5.0)
    assert (counts.sent, exporter.waiting, len(receiver.spans)) == (2, 0, 2)


@scene
async def test_the_end_does_not_wait_for_a_receiver_that_never_answers(
    receiver: Receiver, tracing: Tracing, counts: Counts
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        exporter = Exporter(replace(tracing, url=silent_url, batch=1, timeout_s=3600.0), counts)
        for _ in range(50):
            exporter.offer(*flows(1))
        task = asyncio.ensure_future(exporter.run())
        await eventually(lambda: exporter.waiting < 50)
        task.cancel()
        await asyncio.wait({task})
        # Its thread still waits; another process would end here.
        await exporter.flush(0.2)
    assert counts.lost == {"shutdown": 50}
    assert not receiver.requests


@scene
async def test_records_that_cannot_be_read_are_counted_and_the_rest_goes_on(
    receiver: Receiver, tracing: Tracing, counts: Counts
) -> None:
    async with Running(tracing, counts) as running:
        running.exporter.offer(b"\xc1", 1)
        await eventually(lambda: counts.lost == {"refused": 1})
        running.exporter.offer(*flows(1))
        await eventually(lambda: counts.sent == 1)
    assert len(receiver.requests) == 1


def test_the_receiver_of_these_tests_refuses_what_is_not_otlp() -> None:
    receiver = Receiver()
    with pytest.raises(AssertionError), receiver:
        assert receiver._take("/", {"content-type": "application/json"}, b'{"spans": []}')[0] == 400
