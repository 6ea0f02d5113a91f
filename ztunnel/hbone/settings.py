"""What the peer's SETTINGS change for us, each value checked before anything changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ztunnel.hbone import frames
from ztunnel.hbone.frames import Code
from ztunnel.hbone.limits import Violation

if TYPE_CHECKING:
    from ztunnel.hbone.connection import Connection

_SMALLEST_TABLE = 4_096


def apply(connection: Connection, payload: memoryview) -> None:
    """Apply one SETTINGS frame in order. Raises Violation; unknown settings are ignored."""
    if len(payload) % frames.SETTING.size:
        raise Violation(Code.FRAME_SIZE_ERROR, "frame_size", "SETTINGS of odd size")
    for name, value in frames.SETTING.iter_unpack(payload):
        if name == frames.SETTING_INITIAL_WINDOW:
            _initial_window(connection, value)
        elif name == frames.SETTING_MAX_FRAME:
            if not frames.DEFAULT_FRAME <= value <= frames.LARGEST_FRAME:
                raise Violation(Code.PROTOCOL_ERROR, "settings_value", "frame size out of range")
            connection.peer_max_frame = value
        elif name == frames.SETTING_MAX_STREAMS:
            connection.peer_max_streams = value
        elif name == frames.SETTING_TABLE_SIZE:
            # Our blocks never use the peer's table, but a smaller one must be acknowledged in the next block.
            connection.shrink_table = connection.shrink_table or value < _SMALLEST_TABLE
        elif name == frames.SETTING_ENABLE_PUSH and (value > 1 or (connection.client and value)):
            raise Violation(Code.PROTOCOL_ERROR, "settings_value", "ENABLE_PUSH out of range")


def _initial_window(connection: Connection, value: int) -> None:
    if value > frames.LARGEST_WINDOW:
        raise Violation(Code.FLOW_CONTROL_ERROR, "settings_value", "initial window too large")
    change = value - connection.peer_initial_window
    connection.peer_initial_window = value
    for stream in connection.streams.values():
        stream.send_window += change
        if stream.send_window > frames.LARGEST_WINDOW:
            raise Violation(Code.FLOW_CONTROL_ERROR, "window_overflow", "stream window too large")
    if change > 0:
        connection.offer_room()
