"""Frames as octets agree with hyperframe."""

from __future__ import annotations

from hyperframe.frame import ContinuationFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from ztunnel.hbone import frames


def parsed(data: bytes) -> list[Frame]:
    found = []
    while data:
        one, size = Frame.parse_frame_header(memoryview(data[:9]))
        one.parse_body(memoryview(data[9 : 9 + size]))
        found.append(one)
        data = data[9 + size :]
    return found


def test_settings_resets_and_goaway_are_read_by_others() -> None:
    (settings,) = parsed(frames.settings(((4, 1 << 22), (5, 1 << 20))))
    (reset,) = parsed(frames.rst_stream(7, frames.Code.CANCEL))
    (goaway,) = parsed(frames.goaway(9, frames.Code.ENHANCE_YOUR_CALM, "calm ☕"))
    assert isinstance(settings, SettingsFrame)
    assert settings.settings == {4: 1 << 22, 5: 1 << 20}
    assert isinstance(reset, RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (7, 8)
    assert isinstance(goaway, GoAwayFrame)
    assert (goaway.last_stream_id, goaway.error_code, goaway.additional_data) == (9, 11, b"calm ?")


def test_a_long_header_block_is_continued() -> None:
    block = bytes(range(256)) * 10
    first, *rest = parsed(frames.header_frames(3, block, 1_000, end=True))
    assert isinstance(first, HeadersFrame)
    assert all(isinstance(one, ContinuationFrame) for one in rest)
    assert "END_STREAM" in first.flags
    assert "END_HEADERS" not in first.flags
    assert "END_HEADERS" in rest[-1].flags
    assert b"".join(one.data for one in (first, *rest)) == block


def test_codes_have_names() -> None:
    assert frames.code_name(8) == "CANCEL"
    assert frames.code_name(4711) == "code 4711"
