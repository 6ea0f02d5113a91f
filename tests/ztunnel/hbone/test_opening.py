"""Header blocks where they may come and where they may not: requests, answers, 1xx, trailers."""

from __future__ import annotations

import pytest

from tests.support.tunnel_frames import Recording, Side, send
from ztunnel.hbone import frames
from ztunnel.hbone.frames import Code, frame
from ztunnel.hbone.headers import literal, request_prefix, response_block

BLOCK = request_prefix(b"10.0.0.1:80", b"")
REQUEST = frames.header_frames(1, BLOCK, 16_384)
HELLO = frames.settings(())


def server() -> Side:
    side = Side(client=False)
    side.receive(frames.PREFACE + HELLO + REQUEST)
    side.take()
    return side


def client() -> tuple[Side, Recording]:
    side, sink = Side(client=True), Recording()
    side.core.open(BLOCK, sink)
    side.receive(HELLO)
    side.take()
    return side, sink


def headers(block: bytes, *, end: bool = False, stream: int = 1) -> bytes:
    return frames.header_frames(stream, block, 16_384, end=end)


def test_trailers_end_a_half() -> None:
    side = server()
    side.receive(headers(literal(b"grpc-status", b"0"), end=True))
    assert side.requests[0][2].ended
    assert side.reasons == []


@pytest.mark.parametrize(
    "block", [BLOCK, response_block(200), literal(b"Big", b"x"), literal(b"connection", b"x"), literal(b"a b", b"x")]
)
def test_trailers_that_are_none_end_the_stream_only(block: bytes) -> None:
    side = server()
    side.receive(headers(block, end=True))
    assert side.requests[0][2].reset == (Code.PROTOCOL_ERROR, False)
    assert side.reasons == ["protocol_error"]
    assert side.core.broken is None


@pytest.mark.parametrize("status", [100, 102, 103])
def test_answers_may_be_announced_before_they_come(status: int) -> None:
    side, sink = client()
    side.receive(headers(response_block(status)) * 3)
    assert sink.answer is None
    side.receive(headers(response_block(200)))
    assert sink.answer is not None
    assert sink.answer.status == 200
    assert side.reasons == []


def test_an_announcement_may_not_end_the_stream() -> None:
    side, sink = client()
    side.receive(headers(response_block(103), end=True))
    assert sink.reset == (Code.PROTOCOL_ERROR, False)


def test_announcements_without_end_are_a_flood() -> None:
    side, _ = client()
    side.receive(headers(response_block(103)) * 1_100)
    assert side.reasons == ["informational_flood"]


def test_requests_after_the_last_goaway_open_nothing_and_are_a_flood_when_they_do_not_cease() -> None:
    side = server()
    side.core.drain()
    side.core.tick(0.0)
    for number in range(3, 2_000, 2):
        side.receive(headers(BLOCK, stream=number))
    assert len(side.requests) == 1
    assert side.core.broken is None
    for number in range(2_001, 2_201, 2):
        side.receive(headers(BLOCK, stream=number))
    assert side.reasons == ["dead_stream_flood"]


@pytest.mark.parametrize("name", [b"a b", b"a\x7f", b"a\xe9", b"a:b", b"\x01", b"A"])
def test_a_request_with_a_field_that_has_no_name_is_malformed(name: bytes) -> None:
    side = Side(client=False)
    side.receive(frames.PREFACE + HELLO + headers(BLOCK + literal(name, b"x")))
    assert side.reasons == ["malformed_headers"]
    assert side.requests == []


def test_window_updates_for_every_octet_are_thorough_and_without_any_a_flood() -> None:
    side = server()
    stream = side.requests[0][0]
    stream.answer(response_block(200))
    for _ in range(1_200):
        send(stream, b"x")
        side.receive(frames.window_update(0, 1) + frames.window_update(1, 1))
    assert side.core.broken is None
    side.receive(frames.window_update(1, 1) * 4_000)
    assert side.reasons == ["window_update_flood"]


def test_a_frame_between_header_and_continuation_belongs_to_nobody() -> None:
    side = Side(client=False)
    side.receive(frames.PREFACE + HELLO + frame(frames.HEADERS, 0, 1, BLOCK[:5]))
    side.receive(frame(frames.CONTINUATION, frames.END_HEADERS, 1, BLOCK[5:]))
    assert len(side.requests) == 1
