"""The peer's SETTINGS: what they change, and that a refused value changes nothing."""

from __future__ import annotations

import pytest

from tests.support.tunnel_frames import Recording, Side
from ztunnel.hbone import frames, settings
from ztunnel.hbone.headers import request_prefix
from ztunnel.hbone.limits import Violation


def payload(*values: tuple[int, int]) -> memoryview:
    return memoryview(frames.settings(values)[9:])


def test_values_are_applied_in_order_and_unknown_ones_ignored() -> None:
    side = Side(client=True)
    stream = side.core.open(request_prefix(b"a:1", b""), Recording())
    settings.apply(side.core, payload((4, 10), (4, 70_000), (5, 20_000), (3, 7), (1, 0), (0x99, 5)))
    assert (side.core.peer_initial_window, stream.send_window) == (70_000, 70_000)
    assert (side.core.peer_max_frame, side.core.peer_max_streams) == (20_000, 7)
    assert side.core.shrink_table


@pytest.mark.parametrize("value", [(4, 1 << 31), (5, 16_383), (5, 1 << 24), (2, 2), (2, 1)])
def test_values_out_of_range_are_refused(value: tuple[int, int]) -> None:
    side = Side(client=True)
    with pytest.raises(Violation):
        settings.apply(side.core, payload(value))
    assert (side.core.peer_initial_window, side.core.peer_max_frame) == (65_535, 16_384)


def test_a_window_that_would_overflow_a_stream_is_refused() -> None:
    side = Side(client=True)
    stream = side.core.open(request_prefix(b"a:1", b""), Recording())
    stream.send_window = frames.LARGEST_WINDOW
    with pytest.raises(Violation):
        settings.apply(side.core, payload((4, 70_000)))
