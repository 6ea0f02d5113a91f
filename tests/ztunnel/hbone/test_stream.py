"""A stream that ended is silent, whatever its user still tries."""

from __future__ import annotations

import pytest

from tests.support.tunnel_frames import CONNECT, Oracle, Recording, Side, cut, exchange, opened, overfull, send
from ztunnel.hbone import frames
from ztunnel.hbone.frames import Code
from ztunnel.hbone.headers import request_prefix, response_block
from ztunnel.hbone.stream import Stream


def served() -> tuple[Side, Stream, Recording]:
    side = Side(client=False)
    side.receive(frames.PREFACE + frames.settings(()) + frames.header_frames(1, request_prefix(b"a:1", b""), 99))
    side.take()
    stream, _, sink = side.requests[0]
    return side, stream, sink


@pytest.mark.parametrize("ending", ["reset", "both ends", "by the peer", "lost"])
def test_after_the_end_nothing_is_said_and_nothing_heard(ending: str) -> None:
    side, stream, sink = served()
    stream.answer(response_block(200))
    if ending == "reset":
        stream.reset(Code.CANCEL)
    elif ending == "both ends":
        stream.end()
        side.receive(frames.frame(frames.DATA, frames.END_STREAM, 1))
    elif ending == "by the peer":
        side.receive(frames.rst_stream(1, Code.CANCEL))
    else:
        side.core.lost()
    side.take()
    heard = (bytes(sink.data), sink.ended, sink.reset)
    assert not stream.alive
    send(stream, b"x")
    stream.end()
    stream.answer(response_block(503))
    stream.reset(Code.CANCEL)
    stream.consumed(5)
    side.receive(frames.frame(frames.DATA, 0, 1, b"late"))
    assert side.take() == b""
    assert (bytes(sink.data), sink.ended, sink.reset) == heard
    assert side.core.held == 0


def test_only_the_first_answer_counts() -> None:
    side, stream, _ = served()
    stream.answer(response_block(200))
    side.take()
    stream.answer(response_block(503))
    assert side.take() == b""


def test_an_answer_that_ends_leaves_the_other_half_open() -> None:
    side, stream, sink = served()
    stream.answer(response_block(401), end=True)
    assert stream.alive
    side.receive(frames.frame(frames.DATA, frames.END_STREAM, 1, b"rest"))
    assert bytes(sink.data) == b"rest"
    assert not stream.alive


def test_what_a_dead_stream_held_is_given_back_to_the_connection() -> None:
    side, stream, sink = served()
    sink.hold = True
    side.receive(frames.frame(frames.DATA, 0, 1, bytes(1000)))
    assert side.core.held == 1000
    stream.reset(Code.CANCEL)
    assert side.core.held == 0


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 40_000, 65_535])
def test_frames_are_made_in_place_and_fit(size: int) -> None:
    side, stream, _ = served()
    stream.answer(response_block(200))
    side.take()
    data = bytes(at * at & 255 for at in range(size))
    buffer = memoryview(bytearray(size + 9 * (1 + (size - 1) // 16_384)))
    assert stream.fits(len(buffer)) <= size
    buffer[9 : 9 + size] = data
    octets = bytes(buffer[: stream.fill(buffer, size)])
    assert len(octets) == len(buffer)
    made = cut(octets)
    assert b"".join(payload for *_, payload in made) == data
    assert {len(payload) for *_, payload in made[:-1]} <= {16_384}
    assert {one[:3] for one in made} == {(frames.DATA, 0, 1)}
    for room in (65_536, 70_000, 1 << 18):
        most = stream.fits(room)
        assert room - 16_384 - 18 < most + 9 * -(-most // 16_384) <= room


def test_the_connection_window_opens_when_a_stream_that_held_too_much_is_reset() -> None:
    side, oracle, stream = overfull()
    assert oracle.h2.outbound_flow_control_window == 200_000
    stream.reset(Code.CANCEL)
    exchange(side, oracle)
    assert oracle.h2.outbound_flow_control_window == 400_000


def test_a_sink_that_ends_its_stream_while_it_takes_octets_opens_no_windows_of_it() -> None:
    side, oracle, _, number = opened()
    before = side.core.growth
    stream = side.core.streams[number]
    for _ in range(21):  # the window has grown to a megabyte and is about to become two
        oracle.h2.send_data(number, bytes(256 << 10))
        exchange(side, oracle)
    assert stream.steady >= 2 << 20

    class Ending(Recording):
        def on_data(self, data: memoryview) -> bool:
            stream.reset(Code.CONNECT_ERROR)
            return True

    stream.sink = Ending()
    side.take()
    oracle.h2.send_data(number, bytes(256 << 10))
    side.receive(oracle.take())
    assert side.core.growth == before
    assert [kind for kind, _, stream_id, _ in side.frames() if stream_id == number] == [frames.RST_STREAM]


def test_octets_of_streams_that_we_cut_while_we_go_away_are_no_flood() -> None:
    side, oracle = Side(client=False), Oracle(client=True)
    oracle.h2.send_headers(1, CONNECT)
    oracle.h2.send_headers(3, CONNECT)
    exchange(side, oracle)
    side.core.drain()
    side.core.tick(0.0)
    side.requests[0][0].reset(Code.CANCEL)
    side.receive(frames.frame(frames.DATA, 0, 1, b"x") * 2_000)
    assert side.reasons == []
    assert side.requests[1][0].alive
