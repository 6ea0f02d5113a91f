"""Peers that are odd but right: what RFC 9113 lets them do is not taken for hostility."""

from __future__ import annotations

import struct

import pytest

from tests.support.arena import Arena
from tests.support.hostile_peer import HELLO, PATIENCE_S, SHORT_S, connect, data, headers
from ztunnel.hbone import frames
from ztunnel.hbone.frames import frame

pytestmark = pytest.mark.usefixtures("bystander")


def test_the_largest_stream_number_is_a_stream_like_any_other(place: Arena) -> None:
    with place.wire() as wire:
        wire.send(HELLO, headers((1 << 31) - 1, connect(place.authority)))
        assert wire.listen(PATIENCE_S, enough=lambda h: h.status((1 << 31) - 1)).status((1 << 31) - 1) == 200
        wire.send(headers(1, connect(place.authority)))
        assert wire.listen(SHORT_S).status(1) == 0, "a number below the last one opens nothing"


def test_goaway_of_a_client_lets_its_streams_go_on(place: Arena) -> None:
    with place.wire() as wire:
        wire.send(HELLO, headers(1, connect(place.authority)), frames.goaway(0, 0))
        wire.send(data(1, b"GET /id HTTP/1.0\r\n\r\n"))
        assert b"200" in wire.listen(PATIENCE_S, enough=lambda h: b"200" in h.data(1)).data(1)


def test_unknown_settings_and_frames_are_passed_over(place: Arena) -> None:
    with place.wire() as wire:
        strange = struct.pack(">HI", 0x0A0A, 0xFFFFFFFF)
        wire.send(frames.PREFACE, frame(frames.SETTINGS, 0, 0, strange), frame(77, 255, 12, b"?"))
        wire.send(headers(1, connect(place.authority)))
        assert wire.listen(PATIENCE_S, enough=lambda h: h.status(1)).status(1) == 200
