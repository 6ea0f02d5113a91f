"""Reading over HTTP from a part of the mesh: answers, streams, and one readable error when nobody is there."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ambient.cli.reach import HostReach, ask, here, stream
from ambient.errors import Refused, Unavailable


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/busy" else 200)
        self.end_headers()
        self.wfile.write(b"one\ntwo\n")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _serving() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_answer_has_status_and_body() -> None:
    with _serving() as port:
        assert ask("it", here(None, "127.0.0.1", port), "/x").text == "one\ntwo"
        assert ask("it", here(None, "127.0.0.1", port), "/busy").status == 503


def test_a_stream_comes_line_by_line() -> None:
    with _serving() as port:
        assert list(stream("it", here(None, "127.0.0.1", port), "/x")) == [b"one\n", b"two\n"]


def test_a_stream_that_is_refused_is_unavailable() -> None:
    with _serving() as port, pytest.raises(Unavailable, match="503"):
        list(stream("it", here(None, "127.0.0.1", port), "/busy"))


def test_nobody_there_is_unavailable_and_says_where() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unavailable, match=f"it does not answer: 127.0.0.1:{port}/x: Connection refused"):
        ask("it", here(None, "127.0.0.1", port), "/x")


def test_on_a_node_only_that_node_can_be_asked() -> None:
    host = HostReach("here")
    assert host.nodes() == ["here"]
    with pytest.raises(Refused, match="this is here"):
        host.ztunnel("there", "/")
