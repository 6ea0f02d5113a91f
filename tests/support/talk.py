"""What is carried through a tunnel to see that it is one: requests, both halves of a stream, a lot of bytes."""

from __future__ import annotations

import socket
from collections.abc import Callable

from tests.support.journey import BYTES, HTTP, LINES

Dial = Callable[[int], socket.socket]
"""A connection to the application's port (8080, 7000, 7001), however it gets there."""


def carries_everything(dial: Dial, *, megabytes: int = 4) -> None:
    """AssertionError unless requests, a server that speaks first, half-close and bulk work through `dial`."""
    for _ in range(5):
        with dial(HTTP) as sock:
            sock.sendall(b"GET /id HTTP/1.0\r\n\r\n")
            assert sock.makefile("rb").readline().startswith(b"HTTP/1.1 200")
    with dial(LINES) as sock, sock.makefile("rb") as lines:
        assert lines.readline().startswith(b"hello")
        for number in range(20):
            sock.sendall(b"line %d\n" % number)
            assert lines.readline() == b"line %d\n" % number
    with dial(BYTES) as sock:
        sock.settimeout(30)
        sock.sendall(bytes(megabytes << 20))
        sock.shutdown(socket.SHUT_WR)
        got = 0
        while part := sock.recv(1 << 18):
            got += len(part)
        assert got == 2 * megabytes << 20


def gets_nothing(dial: Dial) -> None:
    """AssertionError when the application answers."""
    try:
        with dial(HTTP) as sock:
            sock.settimeout(5)
            sock.sendall(b"GET /id HTTP/1.0\r\n\r\n")
            got = sock.recv(65536)
    except OSError:
        return
    assert not got.startswith(b"HTTP/1.1 200"), got
