"""Peers that break the rules: each fault ends what it must, with the right code and counter, fed whole or in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tunnel_frames import Recording, Side
from ztunnel.hbone import frames
from ztunnel.hbone.frames import Code, frame
from ztunnel.hbone.headers import request_prefix, response_block
from ztunnel.hbone.limits import Limits

HELLO = frames.settings(())
BLOCK = request_prefix(b"10.0.0.1:80", b"")
REQUEST = frames.header_frames(1, BLOCK, 16_384)


def server(limits: Limits | None = None) -> Side:
    side = Side(client=False, limits=limits)
    side.receive(frames.PREFACE + HELLO)
    side.take()
    return side


def client() -> tuple[Side, Recording]:
    side, sink = Side(client=True), Recording()
    side.core.open(BLOCK, sink)
    side.receive(HELLO)
    side.take()
    return side, sink


def goaway_code(side: Side) -> int | None:
    for kind, _, _, payload in side.frames():
        if kind == frames.GOAWAY:
            return int.from_bytes(payload[4:8], "big")
    return None


CONNECTION_FAULTS: dict[str, tuple[bytes, int, str]] = {
    "DATA on stream 0": (frame(frames.DATA, 0, 0, b"x"), Code.PROTOCOL_ERROR, "stream_id"),
    "DATA on an idle stream": (frame(frames.DATA, 0, 5, b"x"), Code.PROTOCOL_ERROR, "stream_id"),
    "an even stream id": (frames.header_frames(2, BLOCK, 99), Code.PROTOCOL_ERROR, "stream_id"),
    "HEADERS on stream 0": (frames.header_frames(0, BLOCK, 99), Code.PROTOCOL_ERROR, "protocol_error"),
    "RST_STREAM on an idle stream": (frames.rst_stream(9, 0), Code.PROTOCOL_ERROR, "stream_id"),
    "WINDOW_UPDATE on an idle stream": (frames.window_update(9, 1), Code.PROTOCOL_ERROR, "stream_id"),
    "WINDOW_UPDATE of nothing": (frames.window_update(0, 0), Code.PROTOCOL_ERROR, "window_overflow"),
    "a window beyond 2^31-1": (
        frames.window_update(0, frames.LARGEST_WINDOW),
        Code.FLOW_CONTROL_ERROR,
        "window_overflow",
    ),
    "an initial window beyond 2^31-1": (
        frames.settings(((4, 1 << 31),)),
        Code.FLOW_CONTROL_ERROR,
        "settings_value",
    ),
    "a frame size too small": (frames.settings(((5, 100),)), Code.PROTOCOL_ERROR, "settings_value"),
    "a frame size too large": (frames.settings(((5, 1 << 24),)), Code.PROTOCOL_ERROR, "settings_value"),
    "ENABLE_PUSH of 2": (frames.settings(((2, 2),)), Code.PROTOCOL_ERROR, "settings_value"),
    "SETTINGS of 5 octets": (frame(frames.SETTINGS, 0, 0, b"12345"), Code.FRAME_SIZE_ERROR, "frame_size"),
    "SETTINGS on a stream": (frame(frames.SETTINGS, 0, 1, b""), Code.PROTOCOL_ERROR, "protocol_error"),
    "a SETTINGS ACK with payload": (
        frame(frames.SETTINGS, frames.ACK, 0, b"123456"),
        Code.FRAME_SIZE_ERROR,
        "frame_size",
    ),
    "a PING of 7 octets": (frame(frames.PING, 0, 0, b"1234567"), Code.FRAME_SIZE_ERROR, "frame_size"),
    "a PING on a stream": (frame(frames.PING, 0, 1, b"12345678"), Code.PROTOCOL_ERROR, "protocol_error"),
    "a short GOAWAY": (frame(frames.GOAWAY, 0, 0, b"1234"), Code.FRAME_SIZE_ERROR, "frame_size"),
    "RST_STREAM of 3 octets": (frame(frames.RST_STREAM, 0, 1, b"123"), Code.FRAME_SIZE_ERROR, "frame_size"),
    "WINDOW_UPDATE of 5 octets": (
        frame(frames.WINDOW_UPDATE, 0, 0, b"12345"),
        Code.FRAME_SIZE_ERROR,
        "frame_size",
    ),
    "PUSH_PROMISE": (frame(frames.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), Code.PROTOCOL_ERROR, "protocol_error"),
    "CONTINUATION from nowhere": (
        frame(frames.CONTINUATION, 4, 1, b""),
        Code.PROTOCOL_ERROR,
        "protocol_error",
    ),
    "a header block interrupted by PING": (
        frame(frames.HEADERS, 0, 1, BLOCK) + frame(frames.PING, 0, 0, b"12345678"),
        Code.PROTOCOL_ERROR,
        "protocol_error",
    ),
    "a header block interrupted by DATA": (
        frame(frames.HEADERS, 0, 1, BLOCK) + frame(frames.DATA, 0, 1, b"x"),
        Code.PROTOCOL_ERROR,
        "protocol_error",
    ),
    "a header block continued on another stream": (
        frame(frames.HEADERS, 0, 1, BLOCK) + frame(frames.CONTINUATION, 4, 3, b""),
        Code.PROTOCOL_ERROR,
        "protocol_error",
    ),
    "padding longer than its frame": (
        REQUEST + frame(frames.DATA, frames.PADDED, 1, b"\x09abc"),
        Code.PROTOCOL_ERROR,
        "protocol_error",
    ),
    "an empty padded frame": (
        REQUEST + frame(frames.DATA, frames.PADDED, 1, b""),
        Code.PROTOCOL_ERROR,
        "protocol_error",
    ),
    "HEADERS shorter than its priority": (
        frame(frames.HEADERS, 0x24, 1, b"123"),
        Code.FRAME_SIZE_ERROR,
        "frame_size",
    ),
    "a broken header block": (
        frames.header_frames(1, b"\xff\xff\xff\xff\xff\xff", 99),
        Code.COMPRESSION_ERROR,
        "compression",
    ),
    "a header block cut short": (
        frames.header_frames(1, BLOCK[:-3], 99),
        Code.COMPRESSION_ERROR,
        "compression",
    ),
    "a frame larger than we allow": (
        frames.HEADER.pack(0x2000, 0, 0x77, 0, 0),
        Code.FRAME_SIZE_ERROR,
        "frame_size",
    ),
    "DATA larger than we allow": (
        REQUEST + frames.HEADER.pack(0x2000, 0, frames.DATA, 0, 1),
        Code.FRAME_SIZE_ERROR,
        "frame_size",
    ),
}


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("fault", CONNECTION_FAULTS)
def test_a_fault_of_the_connection_ends_it_with_goaway(fault: str, step: int) -> None:
    data, code, counter = CONNECTION_FAULTS[fault]
    side = server()
    side.receive(data, step)
    assert side.core.broken is not None
    assert side.reasons == [counter]
    assert goaway_code(side) == code
    side.receive(REQUEST)
    assert side.take() == b""


@pytest.mark.parametrize("first", [frame(frames.PING, 0, 0, b"12345678"), REQUEST, frame(frames.SETTINGS, 1, 0, b"")])
def test_the_first_frame_must_be_settings(first: bytes) -> None:
    side = Side(client=False)
    side.receive(frames.PREFACE + first)
    assert side.reasons == ["bad_preface"]


def test_another_protocol_is_recognised_at_its_first_octets() -> None:
    side = Side(client=False)
    side.receive(b"GET / HTTP/1.1\r\n")
    assert side.reasons == ["bad_preface"]


STREAM_FAULTS: dict[str, tuple[bytes, int]] = {
    "an upper-case field": (BLOCK + b"\x00\x01A\x01b", Code.PROTOCOL_ERROR),
    "a repeated pseudo field": (BLOCK + BLOCK, Code.PROTOCOL_ERROR),
    "an unknown pseudo field": (b"\x00\x02:x\x01b" + BLOCK, Code.PROTOCOL_ERROR),
    "a pseudo field after others": (b"\x00\x01a\x01b" + BLOCK, Code.PROTOCOL_ERROR),
    "a connection field": (BLOCK + b"\x00\x0aconnection\x01b", Code.PROTOCOL_ERROR),
    "a line break in a value": (BLOCK + b"\x00\x01a\x01\n", Code.PROTOCOL_ERROR),
    "no method": (BLOCK[9:], Code.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("fault", STREAM_FAULTS)
def test_a_malformed_request_ends_its_stream_only(fault: str) -> None:
    block, code = STREAM_FAULTS[fault]
    side = server()
    side.receive(frames.header_frames(1, block, 16_384))
    assert [(kind, stream, payload) for kind, _, stream, payload in side.frames()] == [
        (frames.RST_STREAM, 1, code.to_bytes(4, "big"))
    ]
    assert side.reasons == ["malformed_headers"]
    side.receive(frames.header_frames(3, BLOCK, 16_384))
    assert len(side.requests) == 1


def test_data_after_the_end_of_a_stream_resets_it() -> None:
    side = server()
    side.receive(REQUEST + frame(frames.DATA, 1, 1, b"x") + frame(frames.DATA, 0, 1, b"y"))
    assert side.reasons == ["stream_closed"]
    assert side.core.broken is None


def test_trailers_without_the_end_reset_the_stream() -> None:
    side = server()
    side.receive(REQUEST + frames.header_frames(1, b"\x00\x01a\x01b", 99))
    assert side.reasons == ["protocol_error"]
    assert side.core.broken is None


def test_data_before_an_answer_resets_the_stream() -> None:
    side, sink = client()
    side.receive(frame(frames.DATA, 0, 1, b"early"))
    assert sink.reset == (Code.PROTOCOL_ERROR, False)
    assert sink.data == b""


def test_an_answer_without_a_status_resets_the_stream() -> None:
    side, sink = client()
    side.receive(frames.header_frames(1, b"\x00\x01a\x01b", 99))
    assert sink.reset == (Code.PROTOCOL_ERROR, False)


def test_a_server_may_not_push() -> None:
    side, _ = client()
    side.receive(frames.settings(((frames.SETTING_ENABLE_PUSH, 1),)))
    assert side.reasons == ["settings_value"]


def test_octets_for_a_stream_that_we_reset_are_dropped_and_credited() -> None:
    side, sink = client()
    side.receive(frames.header_frames(1, response_block(200), 99))
    side.core.streams[1].reset(Code.CANCEL)
    side.take()
    for _ in range(20):
        side.receive(frame(frames.DATA, 0, 1, bytes(1 << 20)))
    assert sink.data == b""
    assert side.core.broken is None
    assert side.core.receive_window > 0


def test_padding_counts_against_the_windows_and_is_not_passed_on() -> None:
    side = server()
    side.receive(REQUEST + frame(frames.DATA, frames.PADDED, 1, b"\x05abc" + bytes(5)), 1)
    stream, _, sink = side.requests[0]
    assert bytes(sink.data) == b"abc"
    assert stream.receive_window == (512 << 10) - 9
    assert stream.unreturned == 9


@pytest.mark.parametrize("step", [0, 1, 7])
def test_work_left_for_later_is_done_later_and_nothing_is_lost(step: int) -> None:
    side = server()
    side.core.work_at_once = 30
    side.receive(REQUEST + b"".join(frame(frames.DATA, 0, 1, b"%03d" % number) for number in range(200)), step)
    rounds = 0
    while side.core.unfinished:
        assert len(side.requests[0][2].data) < 600
        side.core.receive(memoryview(b""))
        rounds += 1
    assert bytes(side.requests[0][2].data) == b"".join(b"%03d" % number for number in range(200))
    assert rounds >= (5 if step == 0 else 0)


@pytest.mark.parametrize("step", [0, 1, 7, 50])
def test_frames_of_few_octets_that_follow_each_other_are_handed_on_together(step: int) -> None:
    side = server()
    side.receive(REQUEST + frames.header_frames(3, BLOCK, 99))
    (first, _, sink), (_, _, other) = side.requests
    said = b"".join(frame(frames.DATA, 0, 1, b"%d" % (number % 10)) for number in range(50))
    said += frame(frames.DATA, 0, 1, b"longer") * 2 + frame(frames.DATA, 0, 3, b"z") + frame(frames.DATA, 0, 1, b"e")
    side.receive(said + frame(frames.DATA, frames.END_STREAM, 1, b"f"), step)
    assert bytes(sink.data) == b"0123456789" * 5 + b"longerlonger" + b"ef"
    assert sink.ended
    assert bytes(other.data) == b"z"
    assert first.unreturned == len(sink.data)
    if step == 0:
        assert sink.pieces == [1, 49, 12, 1, 1]


def test_a_run_of_small_frames_beyond_the_window_is_refused() -> None:
    side = server(Limits(stream_window=10))
    side.receive(REQUEST + frame(frames.DATA, 0, 1, b"x") * 12)
    assert len(side.requests[0][2].data) <= 10
    assert side.reasons == ["window_overflow"]


def test_requests_are_more_work_than_octets() -> None:
    side = server()
    side.core.work_at_once = 30
    side.receive(b"".join(frames.header_frames(number, BLOCK, 99) for number in range(1, 41, 2)))
    assert len(side.requests) == 4
    side.receive(frame(frames.PING, 0, 0, b"12345678"))
    assert len(side.requests) == 8
    while side.core.unfinished:
        side.core.receive(memoryview(b""))
    assert len(side.requests) == 20
    assert side.frames()[-1][:2] == (frames.PING, frames.ACK)


def test_a_fault_in_what_was_left_is_found_when_it_is_read() -> None:
    side = server()
    side.core.work_at_once = 3
    side.receive(frame(frames.PING, 0, 0, b"12345678") * 5 + frame(frames.PING, 0, 1, b"12345678"))
    assert side.core.broken is None
    side.core.receive(memoryview(b""))
    assert side.reasons == ["protocol_error"]


def test_priority_and_unknown_frames_are_ignored() -> None:
    side = server()
    priority = frame(frames.PRIORITY, 0, 7, b"\0\0\0\1\x10")
    side.receive(priority + frame(0xEE, 0xFF, 0, b"what") + frame(frames.HEADERS, 0x25, 1, b"\0\0\0\0\x10" + BLOCK))
    assert side.core.broken is None
    assert side.requests[0][2].ended


def test_the_streams_window_is_enforced() -> None:
    side = server(Limits(stream_window=1_000))
    side.receive(REQUEST)
    side.requests[0][2].hold = True
    side.receive(frame(frames.DATA, 0, 1, bytes(1_000)))
    assert side.core.broken is None
    side.receive(frame(frames.DATA, 0, 1, b"x"))
    assert side.reasons == ["window_overflow"]
    assert side.requests[0][2].reset == (Code.FLOW_CONTROL_ERROR, False)


def test_the_connections_window_is_enforced() -> None:
    side = server(Limits(connection_window=70_000, max_held=0))
    side.receive(REQUEST)
    side.requests[0][2].hold = True
    side.receive(frame(frames.DATA, 0, 1, bytes(70_001)))
    assert side.reasons == ["window_overflow"]
    assert side.core.broken is not None


def test_streams_beyond_the_limit_are_refused_untouched() -> None:
    side = server(Limits(max_streams=3))
    for number in (1, 3, 5, 7):
        side.receive(frames.header_frames(number, BLOCK, 99))
    assert len(side.requests) == 3
    assert (frames.RST_STREAM, 0, 7, Code.REFUSED_STREAM.to_bytes(4, "big")) in side.frames()


def test_a_peer_whose_block_cannot_be_decoded_hears_nothing_of_our_memory() -> None:
    connection = server()
    connection.receive(frame(frames.HEADERS, 4, 1, b"?"))
    assert connection.take().endswith(b"header block cannot be decoded")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 7), st.binary(max_size=40))))
def test_any_sequence_of_frames_leaves_a_sane_connection(sequence: list[tuple[int, int, int, bytes]]) -> None:
    data = b"".join(frame(*one) for one in sequence)
    whole, pieces = server(), server()
    whole.receive(data)
    pieces.receive(data, 1)
    assert whole.take() == pieces.take()
    assert whole.reasons == pieces.reasons
    assert whole.core.held == 0 or whole.core.broken is not None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_octets_end_in_a_clean_refusal_or_in_waiting(data: bytes) -> None:
    side = server()
    side.receive(data)
    if side.core.broken is not None:
        assert goaway_code(side) is not None
