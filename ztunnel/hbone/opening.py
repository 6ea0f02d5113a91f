"""What a header block means where it comes: a new stream, an answer, or the trailers that end a half."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ztunnel.hbone import frames
from ztunnel.hbone.frames import Code
from ztunnel.hbone.headers import Fields
from ztunnel.hbone.limits import Violation
from ztunnel.hbone.message import check_trailers, read_answer, read_request
from ztunnel.hbone.stream import Stream

if TYPE_CHECKING:
    from ztunnel.hbone.connection import Connection


def on_headers(connection: Connection, stream_id: int, fields: Fields, *, end: bool) -> None:
    """A complete header block for `stream_id`. Raises Violation for errors of the connection."""
    stream = connection.streams.get(stream_id)
    if stream is None:
        if connection.client or not stream_id & 1 or stream_id <= connection.last_peer_id:
            connection.refuse_idle(stream_id, "HEADERS")
            connection.costs.dead()
            return
        _begin(connection, stream_id, fields, end=end)
        return
    if stream.remote_done:
        connection.fail_stream(stream, Code.STREAM_CLOSED, "stream_closed")
        return
    if not connection.client or stream.answered:
        if end and check_trailers(fields):
            connection.remote_end(stream)
        else:
            connection.fail_stream(stream, Code.PROTOCOL_ERROR, "protocol_error")
        return
    try:
        answer = read_answer(fields)
    except Violation as violation:
        connection.fail_stream(stream, violation.code, violation.reason)
        return
    if answer.status < 200:
        connection.costs.control("informational_flood")
        if end:
            connection.fail_stream(stream, Code.PROTOCOL_ERROR, "protocol_error")
        return
    stream.answered = True
    if stream.sink is not None:
        stream.sink.on_answer(answer)
    if end:
        connection.remote_end(stream)


def _begin(connection: Connection, stream_id: int, fields: Fields, *, end: bool) -> None:
    if connection.going_away:
        connection.costs.control("dead_stream_flood")
        return
    connection.last_peer_id = stream_id
    if len(connection.streams) >= connection.limits.max_streams:
        connection.write(frames.rst_stream(stream_id, Code.REFUSED_STREAM))
        connection.costs.wasted()
        return
    try:
        request = read_request(fields)
    except Violation as violation:
        connection.write(frames.rst_stream(stream_id, violation.code))
        connection.owner.on_violation(violation)
        connection.costs.wasted()
        return
    stream = Stream(connection, stream_id, None)
    connection.streams[stream_id] = stream
    sink = connection.owner.on_request(stream, request)
    if stream_id in connection.streams:
        stream.sink = sink
        if end:
            connection.remote_end(stream)
