"""Our HTTP/2 against h2 in both roles, whole and octet by octet."""

from __future__ import annotations

import h2.errors
import h2.events
import h2.settings
import pytest

from tests.support.tunnel_frames import CONNECT, Oracle, Recording, Side, exchange, opened, overfull, send
from ztunnel.hbone import frames
from ztunnel.hbone.frames import Code
from ztunnel.hbone.headers import literal, request_prefix, response_block
from ztunnel.hbone.limits import CLIENT, SERVER, Limits

STEPS = pytest.mark.parametrize("step", [0, 1, 7, 4096])


@STEPS
def test_a_client_opens_a_tunnel_and_moves_octets_both_ways(step: int) -> None:
    side, oracle, sink, number = opened(step)
    (request,) = oracle.of(h2.events.RequestReceived)
    assert dict(request.headers) == {b":method": b"CONNECT", b":authority": b"10.0.0.1:80", b"baggage": b"a=b"}
    assert sink.answer is not None
    assert (sink.answer.status, sink.answer.fields) == (200, ((b"baggage", b"c=d"),))
    stream = side.core.streams[number]
    send(stream, b"question")
    oracle.h2.send_data(number, b"answer" * 1000, end_stream=True)
    exchange(side, oracle, step)
    assert bytes(sink.data) == b"answer" * 1000
    assert sink.ended
    assert stream.alive
    send(stream, b" and more")
    stream.end()
    exchange(side, oracle, step)
    assert oracle.data(number) == b"question and more"
    assert oracle.of(h2.events.StreamEnded)
    assert not side.core.streams


@STEPS
def test_a_server_answers_a_tunnel_and_moves_octets_both_ways(step: int) -> None:
    side, oracle = Side(client=False), Oracle(client=True)
    oracle.h2.send_headers(1, [*CONNECT, (b"forwarded", b'for="1.2.3.4:5"')])
    exchange(side, oracle, step)
    ((stream, request, sink),) = side.requests
    assert request.connect
    assert request.authority == b"10.0.0.1:80"
    assert request.first(b"forwarded") == b'for="1.2.3.4:5"'
    stream.answer(response_block(200, b"x=y"))
    exchange(side, oracle, step)
    (answer,) = oracle.of(h2.events.ResponseReceived)
    assert dict(answer.headers) == {b":status": b"200", b"baggage": b"x=y"}
    oracle.h2.send_data(1, b"in" * 500)
    oracle.h2.end_stream(1)
    exchange(side, oracle, step)
    assert bytes(sink.data) == b"in" * 500
    assert sink.ended
    send(stream, b"out" * 500)
    stream.end()
    exchange(side, oracle, step)
    assert oracle.data(1) == b"out" * 500
    assert not side.core.streams


def test_many_requests_with_a_dynamic_table_decode_right() -> None:
    side, oracle = Side(client=False), Oracle(client=True)
    for at in range(100):
        number = 1 + 2 * at
        authority = b"10.0.0.%d:80" % (at % 7)
        oracle.h2.send_headers(number, [(b":method", b"CONNECT"), (b":authority", authority), (b"x-n", b"%d" % at)])
        exchange(side, oracle)
        stream, request, _ = side.requests[-1]
        assert (request.authority, request.first(b"x-n")) == (authority, b"%d" % at)
        stream.answer(response_block(503), end=True)
        stream.reset(Code.NO_ERROR)
        exchange(side, oracle)
    assert len(oracle.of(h2.events.ResponseReceived)) == 100


def test_blocks_with_and_without_table_use_may_alternate() -> None:
    side, oracle = Side(client=False), Oracle(client=True)
    for at in range(6):
        number = 1 + 2 * at
        if at % 2:
            block = request_prefix(b"10.0.0.9:1", b"") + literal(b"x", b"plain")
            side.receive(frames.header_frames(number, block, 16_384))
            oracle.h2.highest_outbound_stream_id = number
        else:
            oracle.h2.send_headers(number, [*CONNECT, (b"x", b"table")])
            side.receive(oracle.take())
    assert [request.first(b"x") for _, request, _ in side.requests] == [b"table", b"plain"] * 3


def test_sending_stops_at_the_peers_windows_and_goes_on_when_they_open() -> None:
    side, oracle, sink, number = opened()
    stream = side.core.streams[number]
    assert stream.room() == frames.DEFAULT_WINDOW
    sent = bytearray()
    while len(sent) < 200_000:
        room = stream.room()
        if room <= 0:
            stream.await_room()
            exchange(side, oracle)
            before = sink.room
            oracle.credit()
            exchange(side, oracle)
            assert sink.room == before + 1
            continue
        part = bytes([len(sent) % 251]) * min(room, 30_000)
        send(stream, part)
        sent += part
        oracle.receive(side.take())
    assert not oracle.of(h2.events.ConnectionTerminated)


def test_frames_to_a_peer_are_cut_to_its_frame_size() -> None:
    side, oracle, _, number = opened()
    send(side.core.streams[number], bytes(range(256)) * 200)
    sizes = [len(payload) for kind, _, _, payload in side.frames() if kind == frames.DATA]
    assert sizes == [16_384, 16_384, 16_384, 2_048]
    side, oracle, _, number = opened()
    data = bytes(range(256)) * 200
    send(side.core.streams[number], data)
    exchange(side, oracle)
    assert oracle.data(number) == data


def test_a_peers_larger_frames_and_windows_are_used() -> None:
    values = {
        h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20,
        h2.settings.SettingCodes.MAX_FRAME_SIZE: 1 << 18,
    }
    side, oracle = Side(client=True), Oracle(client=False, settings=values)
    oracle.h2.increment_flow_control_window(1 << 20)
    sink = Recording()
    stream = side.core.open(request_prefix(b"10.0.0.1:80", b""), sink)
    exchange(side, oracle)
    assert stream.room() == 1 << 20
    send(stream, bytes(200_000))
    assert [len(payload) for kind, _, _, payload in side.frames() if kind == frames.DATA] == [200_000]


def test_windows_shrunk_by_the_peer_go_negative_and_recover() -> None:
    side, _, sink, number = opened()
    stream = side.core.streams[number]
    send(stream, bytes(60_000))
    side.receive(frames.settings(((frames.SETTING_INITIAL_WINDOW, 1_000),)))
    assert stream.room() == 1_000 - 60_000
    stream.await_room()
    side.receive(frames.window_update(number, 59_000))
    assert sink.room == 0
    side.receive(frames.window_update(number, 1))
    assert sink.room == 1
    assert stream.room() == 1


def test_our_windows_open_and_grow_as_data_is_consumed() -> None:
    side, oracle, sink, number = opened()
    assert oracle.h2.remote_settings.initial_window_size == 512 << 10
    assert oracle.h2.remote_settings.max_frame_size == 1 << 20
    assert oracle.h2.outbound_flow_control_window == 16 << 20
    for _ in range(160):
        oracle.h2.send_data(number, bytes(256 << 10))
        exchange(side, oracle)
    assert len(sink.data) == 40 << 20
    assert oracle.h2.local_flow_control_window(number) > 3 << 20, "grown to four megabytes, less what is unreturned"


def test_windows_shrink_when_octets_are_kept_and_all_growth_is_given_back() -> None:
    side, oracle, sink, number = opened()
    before = side.core.growth
    for _ in range(160):
        oracle.h2.send_data(number, bytes(256 << 10))
        exchange(side, oracle)
    stream = side.core.streams[number]
    assert (stream.window, side.core.growth) == (4 << 20, before - (4 << 20) + (512 << 10))
    sink.hold = True
    for _ in range(12):
        oracle.h2.send_data(number, bytes(256 << 10))
        exchange(side, oracle)
    stream.consumed(3 << 20)
    assert stream.window == 1 << 20
    stream.reset(Code.CANCEL)
    assert side.core.growth == before


def test_the_windows_of_all_streams_together_grow_only_so_far() -> None:
    side, oracle, _, number = opened(limits=Limits(growth=600_000))
    for _ in range(160):
        oracle.h2.send_data(number, bytes(256 << 10))
        exchange(side, oracle)
    assert side.core.streams[number].window == (512 << 10) + 600_000
    assert side.core.growth == 0


def test_all_streams_that_a_client_may_open_can_stall_without_shutting_the_connection() -> None:
    assert CLIENT.max_streams * CLIENT.stream_window + CLIENT.growth < CLIENT.max_held
    assert CLIENT.max_streams * SERVER.stream_window + SERVER.growth < SERVER.max_held


def test_a_reader_that_holds_costs_one_stream_window_and_not_the_others() -> None:
    side, oracle, slow, number = opened()
    slow.hold = True
    quick = Recording()
    other = side.core.open(request_prefix(b"10.0.0.2:80", b""), quick)
    exchange(side, oracle)
    oracle.h2.send_headers(other.id, [(b":status", b"200")])
    oracle.h2.send_data(number, bytes(512 << 10))
    exchange(side, oracle)
    assert oracle.h2.local_flow_control_window(number) == 0
    for _ in range(80):
        oracle.h2.send_data(other.id, bytes(256 << 10))
        exchange(side, oracle)
    assert len(quick.data) == 20 << 20
    side.core.streams[number].consumed(512 << 10)
    exchange(side, oracle)
    assert oracle.h2.local_flow_control_window(number) == 512 << 10


def test_the_connection_window_stays_shut_while_too_much_is_held() -> None:
    side, oracle, stream = overfull()
    assert oracle.h2.outbound_flow_control_window == 200_000
    stream.consumed(400_000)
    exchange(side, oracle)
    assert oracle.h2.outbound_flow_control_window == 400_000


def test_pings_are_answered_and_keepalive_ends_a_silent_peer() -> None:
    side, oracle, sink, _ = opened()
    oracle.h2.ping(b"12345678")
    exchange(side, oracle)
    assert oracle.of(h2.events.PingAckReceived)
    side.core.tick(100.0)
    side.core.tick(109.0)
    assert side.take() == b""
    side.core.tick(110.0)
    exchange(side, oracle)
    side.core.tick(111.0)
    side.core.tick(121.0)
    assert [kind for kind, *_ in side.frames()] == [frames.PING]
    side.core.tick(140.0)
    assert side.core.broken is None
    side.core.tick(141.0)
    assert side.reasons == ["ping_timeout"]
    assert sink.reset is not None


def test_goaway_gives_back_the_streams_that_the_peer_never_saw() -> None:
    side, oracle, sink, _ = opened()
    late = Recording()
    side.core.open(request_prefix(b"10.0.0.1:80", b""), late)
    oracle.h2.close_connection(last_stream_id=1)
    side.receive(oracle.take())
    assert late.reset == (0, True)
    assert sink.reset is None
    assert side.core.capacity() == 0
    assert side.going_away == 1


def test_draining_says_goaway_twice_and_takes_what_comes_between() -> None:
    side, oracle = Side(client=False), Oracle(client=True)
    exchange(side, oracle)
    side.core.drain()
    first = side.frames()
    assert [kind for kind, *_ in first] == [frames.GOAWAY, frames.PING]
    assert first[0][3][:4] == b"\x7f\xff\xff\xff"
    oracle.h2.send_headers(1, CONNECT)
    side.receive(oracle.take())
    assert len(side.requests) == 1
    side.core.tick(1.0)
    assert [(kind, payload[:4]) for kind, _, _, payload in side.frames()] == [(frames.GOAWAY, b"\0\0\0\x01")]
    oracle.h2.send_headers(3, CONNECT)
    side.receive(oracle.take())
    assert len(side.requests) == 1
    stream, _, _ = side.requests[0]
    stream.answer(response_block(200))
    assert stream.alive


def test_the_last_goaway_comes_as_soon_as_the_peer_has_read_the_first() -> None:
    side, oracle = Side(client=False), Oracle(client=True)
    exchange(side, oracle)
    side.core.drain()
    _, (_, _, _, question) = side.frames()
    oracle.h2.send_headers(1, CONNECT)
    side.receive(oracle.take())
    assert not side.core.going_away
    side.receive(memoryview(frames.frame(frames.PING, frames.ACK, 0, question)))
    assert [(kind, payload[:4]) for kind, _, _, payload in side.frames()] == [(frames.GOAWAY, b"\0\0\0\x01")]


def test_what_crosses_the_last_goaway_costs_the_open_streams_nothing() -> None:
    side, oracle = Side(client=False), Oracle(client=True)
    exchange(side, oracle)
    oracle.h2.send_headers(1, CONNECT)
    side.receive(oracle.take())
    side.core.drain()
    side.core.tick(1.0)
    oracle.h2.send_headers(3, CONNECT)
    oracle.h2.send_data(3, b"early")
    oracle.h2.increment_flow_control_window(1000, 3)
    oracle.h2.reset_stream(3)
    side.receive(oracle.take())
    assert side.core.broken is None
    assert [stream.id for stream, _, _ in side.requests] == [1]
    assert side.requests[0][0].alive


def test_a_client_that_said_goaway_may_open_streams_all_the_same() -> None:
    side, oracle = Side(client=False), Oracle(client=True)
    exchange(side, oracle)
    side.receive(memoryview(frames.goaway(0, Code.NO_ERROR)))
    oracle.h2.send_headers(1, CONNECT)
    side.receive(oracle.take())
    assert len(side.requests) == 1
    side.core.drain()
    side.core.tick(1.0)
    assert [kind for kind, *_ in side.frames()].count(frames.GOAWAY) == 2


def test_resets_travel_both_ways() -> None:
    side, oracle, sink, number = opened()
    oracle.h2.reset_stream(number, h2.errors.ErrorCodes.CONNECT_ERROR)
    exchange(side, oracle)
    assert sink.reset == (Code.CONNECT_ERROR, False)
    side, oracle, sink, number = opened()
    side.core.streams[number].reset(Code.CANCEL)
    exchange(side, oracle)
    (event,) = oracle.of(h2.events.StreamReset)
    assert event.error_code == Code.CANCEL
    assert sink.reset is None


def test_a_refused_stream_was_not_touched() -> None:
    side, oracle = Side(client=True), Oracle(client=False)
    sink = Recording()
    stream = side.core.open(request_prefix(b"10.0.0.1:80", b""), sink)
    exchange(side, oracle)
    oracle.h2.reset_stream(stream.id, h2.errors.ErrorCodes.REFUSED_STREAM)
    exchange(side, oracle)
    assert sink.reset == (Code.REFUSED_STREAM, True)


def test_informational_answers_are_passed_over_and_trailers_end_a_stream() -> None:
    side, oracle = Side(client=True), Oracle(client=False)
    sink = Recording()
    stream = side.core.open(request_prefix(b"10.0.0.1:80", b""), sink)
    exchange(side, oracle)
    oracle.h2.send_headers(stream.id, [(b":status", b"103")])
    exchange(side, oracle)
    assert sink.answer is None
    oracle.h2.send_headers(stream.id, [(b":status", b"200")])
    oracle.h2.send_headers(stream.id, [(b"x-trailer", b"1")], end_stream=True)
    exchange(side, oracle)
    assert sink.answer is not None
    assert sink.ended


def test_a_smaller_header_table_is_acknowledged() -> None:
    side, oracle = Side(client=True), Oracle(client=False, settings={1: 0})
    exchange(side, oracle)
    side.core.open(request_prefix(b"10.0.0.1:80", b""), Recording())
    exchange(side, oracle)
    assert oracle.of(h2.events.RequestReceived)


def test_capacity_follows_the_peers_limit_and_ours() -> None:
    side, _, _, _ = opened()
    assert side.core.capacity() == 99
    side.receive(frames.settings(((frames.SETTING_MAX_STREAMS, 3),)))
    assert side.core.capacity() == 2


def test_losing_the_transport_is_told_to_every_stream() -> None:
    side, _, sink, _ = opened()
    side.core.lost(-1)
    assert sink.reset == (-1, False)
    assert side.core.capacity() == 0
