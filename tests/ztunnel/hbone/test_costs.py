"""What a peer may make us do for nothing, to the last frame."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.tunnel_frames import Recording, Side
from ztunnel.hbone import frames
from ztunnel.hbone.costs import Costs
from ztunnel.hbone.frames import Code, frame
from ztunnel.hbone.headers import request_prefix, response_block
from ztunnel.hbone.limits import Limits, Violation
from ztunnel.hbone.message import Answer

HELLO = frames.settings(())
BLOCK = request_prefix(b"10.0.0.1:80", b"")
REQUEST = frames.header_frames(1, BLOCK, 16_384)
LIMITS = Limits(max_control_per_tick=3, max_reset_debt=2)


def test_one_control_frame_beyond_the_limit_ends_it_and_names_its_kind() -> None:
    costs = Costs(LIMITS)
    for reason in ("ping_flood", "settings_flood", "ping_flood"):
        costs.control(reason)
    with pytest.raises(Violation) as found:
        costs.control("priority_flood")
    assert (found.value.reason, found.value.code) == ("priority_flood", Code.ENHANCE_YOUR_CALM)


def test_every_second_begins_anew() -> None:
    costs = Costs(LIMITS)
    for _ in range(10):
        for _ in range(3):
            costs.control("ping_flood")
            assert costs.update()
        costs.tick()


def test_window_updates_beyond_the_allowance_are_paid_by_octets_that_were_sent_two_for_each() -> None:
    costs = Costs(LIMITS)
    for _ in range(3):
        assert costs.update()
    assert not costs.update()
    costs.pay(1)
    assert costs.update()
    assert not costs.update()
    with pytest.raises(Violation) as found:
        costs.pay(0)
    assert found.value.reason == "window_update_flood"


def test_wasted_streams_are_made_good_by_answered_ones_and_no_further() -> None:
    costs = Costs(LIMITS)
    for _ in range(5):
        costs.answered()
    for _ in range(50):
        costs.wasted()
        costs.answered()
    costs.wasted()
    costs.wasted()
    with pytest.raises(Violation) as found:
        costs.wasted()
    assert found.value.reason == "rapid_reset"


def test_what_crosses_our_reset_is_free_and_no_more_than_that() -> None:
    costs = Costs(LIMITS)
    for _ in range(50):
        costs.cut_off()
        costs.dead()
        costs.dead()
    for _ in range(50):
        costs.cut_off()
    for _ in range(3 + 3):
        costs.dead()
    with pytest.raises(Violation) as found:
        costs.dead()
    assert found.value.reason == "dead_stream_flood"


def test_thousands_of_refused_streams_of_a_client_of_ours_do_not_end_the_one_beside_them() -> None:
    here, there = Side(client=True), Side(client=False)

    def carry() -> None:
        there.receive(here.take())
        here.receive(there.take())

    class Impatient(Recording):
        def on_answer(self, answer: Answer) -> None:
            stream.reset(Code.CANCEL)

    here.core.open(BLOCK, Recording())
    carry()
    there.requests[0][0].answer(response_block(200))
    for _ in range(2_000):
        stream = here.core.open(BLOCK, Impatient())
        there.receive(here.take())
        refused = there.requests.pop()[0]
        refused.answer(response_block(401), end=True)
        refused.reset(Code.NO_ERROR)
        carry()
    carry()
    assert (here.reasons, there.reasons) == ([], [])
    assert 1 in here.core.streams


def server(limits: Limits | None = None) -> Side:
    side = Side(client=False, limits=limits)
    side.receive(frames.PREFACE + HELLO)
    side.take()
    return side


def goaway_code(side: Side) -> int | None:
    found = [payload for kind, _, _, payload in side.frames() if kind == frames.GOAWAY]
    return int.from_bytes(found[0][4:8], "big") if found else None


def _rapid_reset(side: Side) -> None:
    for at in range(300):
        number = 1 + 2 * at
        side.receive(frames.header_frames(number, BLOCK, 99) + frames.rst_stream(number, Code.CANCEL))


def _continuations(side: Side) -> None:
    side.receive(frame(frames.HEADERS, 0, 1, BLOCK))
    for _ in range(100):
        side.receive(frame(frames.CONTINUATION, 0, 1, b""))


def _large_block(side: Side) -> None:
    side.receive(frames.header_frames(1, BLOCK + b"\x00\x01a\x7f\x81\xff\x03" + bytes(65_536), 1 << 20))


def _large_list(side: Side) -> None:
    # One octet each in the block, 32 and more in the list that it stands for.
    side.receive(frames.header_frames(1, BLOCK + b"\x90" * 3_000, 1 << 20))


def _pings(side: Side) -> None:
    side.receive(frame(frames.PING, 0, 0, b"12345678") * 1_100)


def _settings(side: Side) -> None:
    side.receive(HELLO * 1_100)


def _empty_data(side: Side) -> None:
    side.receive(REQUEST + frame(frames.DATA, 0, 1, b"") * 1_100)


def _all_padding(side: Side) -> None:
    side.receive(REQUEST + frame(frames.DATA, frames.PADDED, 1, b"\x00") * 1_100)


def _large_settings(side: Side) -> None:
    side.receive(frames.settings(((0x0A0A, 1),) * 10_000))


def _unknown(side: Side) -> None:
    side.receive(frame(0xEE, 0, 0, b"") * 1_100)


def _opened_for_nothing(side: Side) -> None:
    for at in range(1_100):
        number = 1 + 2 * at
        side.receive(frames.header_frames(number, BLOCK, 99))
        side.requests[-1][0].answer(response_block(200))
        side.receive(frames.rst_stream(number, Code.CANCEL))
        if side.core.broken is not None:
            return


def _headers_of_a_dead_stream(side: Side) -> None:
    side.receive(REQUEST + frames.rst_stream(1, Code.CANCEL) + REQUEST * 1_100)


def _windows_of_a_dead_stream(side: Side) -> None:
    side.receive(REQUEST + frames.rst_stream(1, Code.CANCEL) + frames.window_update(1, 1) * 1_100)


FLOODS: dict[str, tuple[Callable[[Side], None], str]] = {
    "rapid reset": (_rapid_reset, "rapid_reset"),
    "endless continuation": (_continuations, "continuation_flood"),
    "a huge header block": (_large_block, "header_list_size"),
    "a small block that stands for a huge list": (_large_list, "header_list_size"),
    "a flood of PING": (_pings, "ping_flood"),
    "a flood of SETTINGS": (_settings, "settings_flood"),
    "a flood of empty DATA": (_empty_data, "empty_data_flood"),
    "a flood of DATA that is all padding": (_all_padding, "empty_data_flood"),
    "one SETTINGS of ten thousand values": (_large_settings, "settings_flood"),
    "a flood of unknown frames": (_unknown, "unknown_frame_flood"),
    "streams that are answered and reset unused": (_opened_for_nothing, "unused_stream_flood"),
    "headers for a stream that ended": (_headers_of_a_dead_stream, "dead_stream_flood"),
    "windows for a stream that ended": (_windows_of_a_dead_stream, "dead_stream_flood"),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_the_connection_with_enhance_your_calm(flood: str) -> None:
    act, counter = FLOODS[flood]
    side = server()
    act(side)
    assert side.core.broken is not None
    assert counter in side.reasons
    assert goaway_code(side) == Code.ENHANCE_YOUR_CALM


def test_the_same_amount_over_many_seconds_is_no_flood() -> None:
    side = server()
    for second in range(20):
        side.receive(frame(frames.PING, 0, 0, b"12345678") * 100)
        side.core.tick(float(second))
    assert side.core.broken is None


def test_resets_of_answered_streams_are_no_rapid_reset() -> None:
    side = server()
    for at in range(1_000):
        number = 1 + 2 * at
        side.receive(frames.header_frames(number, BLOCK, 99))
        side.requests[-1][0].answer(response_block(200))
        side.receive(frames.rst_stream(number, Code.CANCEL))
        side.core.tick(0.0)
    assert side.core.broken is None


NO_LIMIT = 1 << 30
LIFTED: dict[str, Limits] = {
    "rapid reset": Limits(max_reset_debt=NO_LIMIT),
    "endless continuation": Limits(max_continuations=NO_LIMIT),
    "a huge header block": Limits(max_header_list=NO_LIMIT),
    "a small block that stands for a huge list": Limits(max_header_list=NO_LIMIT),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_sabotage_with_its_limit_lifted_the_flood_goes_through(flood: str) -> None:
    act, _ = FLOODS[flood]
    side = server(LIFTED.get(flood, Limits(max_control_per_tick=NO_LIMIT)))
    act(side)
    assert side.core.broken is None


def test_work_for_nothing_is_added_up_for_who_asks() -> None:
    costs = Costs(Limits(max_control_per_tick=10))
    costs.control("ping_flood")
    costs.refused()
    costs.wasted()
    costs.update()
    assert costs.for_nothing == 1 + 2 * 8
    costs.tick()
    assert costs.for_nothing == 0
