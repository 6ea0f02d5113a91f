"""Peers that are slow, silent, greedy, or leave in the middle: what they hold is bounded and given back."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.arena import Arena
from tests.support.hostile_peer import HELLO, PATIENCE_S, Wire, connect, data, headers, inside
from tests.support.journey import BYTES, FAR, LINES
from tests.support.lab import until
from tests.support.mint import client_context
from ztunnel.hbone import frames
from ztunnel.hbone.frames import Code

pytestmark = pytest.mark.usefixtures("bystander")
HANDSHAKE_S = 10
KEEPALIVE_S = 30
"""Ten seconds until the first PING, twenty for its answer."""


@dataclass
class Slow:
    """A peer that was started long ago and is looked at when its time is over."""

    sock: socket.socket
    since: float

    def ends_within(self, seconds: float) -> float:
        """When the server hung up, in seconds since the start; AssertionError when it has not."""
        self.sock.settimeout(max(0.1, self.since + seconds - time.monotonic()))
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while self.sock.recv(65536):
                pass
        return time.monotonic() - self.since


@pytest.fixture(scope="module", autouse=True)
def slow(place: Arena) -> Iterator[dict[str, Slow]]:
    """Started before the other tests of this module, so that waiting costs nothing."""
    now = time.monotonic()
    made = {"silent": Slow(place.dial(), now), "hello": Slow(place.dial(), now)}
    made["hello"].sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
    for name, words in (
        ("no greeting", b""),
        ("half a greeting", frames.PREFACE[:10]),
        ("no answer to PING", HELLO),
        ("half a frame", HELLO + frames.HEADER.pack(0xFF, 0, frames.HEADERS, 4, 1) + b"x"),
        ("half a block", HELLO + headers(1, b"", flags=0)),
    ):
        wire = place.wire()
        wire.send(words)
        made[name] = Slow(wire.tls, time.monotonic())
    yield made
    for one in made.values():
        one.sock.close()


@contextlib.contextmanager
def deaf_app(place: Arena, port: int, backlog: int = 16) -> Iterator[None]:
    """An application of `far` that accepts nothing and reads nothing; beyond its backlog nobody gets a connection."""
    with inside(place.lab, FAR):
        listener = socket.socket(socket.AF_INET6)
    with listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("::", port))
        listener.listen(backlog)
        yield


def memory_kb(place: Arena) -> int:
    """Private and shared memory of n2's ztunnel processes."""
    total = 0
    for pid in place.lab.component("n2", "ztunnel")["pids"]:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            total += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return total


def test_one_octet_at_a_time_is_understood_as_well(place: Arena) -> None:
    with place.wire() as wire:
        for octet in HELLO + headers(1, connect(place.authority)) + data(1, b"GET /id HTTP/1.0\r\n\r\n"):
            wire.send(bytes((octet,)))
        assert b"200" in wire.listen(PATIENCE_S, enough=lambda h: b"200" in h.data(1)).data(1)


def test_a_handshake_in_pieces_of_one_octet_is_understood_as_well(place: Arena) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(place.web).wrap_bio(incoming, outgoing)
    with place.dial() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                for octet in outgoing.read():
                    sock.send(bytes((octet,)))
                incoming.write(sock.recv(65536))
        tls.write(HELLO + headers(1, connect(place.authority)))
        sock.sendall(outgoing.read())
        assert sock.recv(65536)


def test_more_than_the_window_of_a_stream_resets_it(place: Arena) -> None:
    with deaf_app(place, 9101), place.wire() as wire:
        before = memory_kb(place)
        wire.send(HELLO, headers(1, connect(f"{place.far}:9101")))
        assert wire.listen(PATIENCE_S, enough=lambda h: h.status(1)).status(1) == 200
        for _ in range(15):
            wire.send(data(1, bytes(1 << 20)))
        heard = wire.listen(PATIENCE_S, enough=lambda h: h.reset(1) is not None)
        assert heard.reset(1) == Code.FLOW_CONTROL_ERROR, heard
        assert memory_kb(place) - before < 24 << 10


def test_rapid_reset_ends_the_connection(place: Arena) -> None:
    """Requests that are given up before they can be answered, since the application takes no more connections."""
    request = connect(f"{place.far}:9103")
    with deaf_app(place, 9103, backlog=0), place.wire() as holder, place.wire() as wire:
        holder.send(HELLO, *(headers(n, request) for n in (1, 3, 5)))
        holder.listen(PATIENCE_S, enough=lambda h: h.status(1))
        streams = range(1, 2 * 260, 2)
        wire.send(HELLO, *(headers(n, request) + frames.rst_stream(n, Code.CANCEL) for n in streams))
        heard = wire.listen(PATIENCE_S)
        assert heard.goaway == (Code.ENHANCE_YOUR_CALM, "too many streams reset before an answer")
        assert heard.closed


def test_a_reader_with_a_window_of_nothing_stalls_only_itself_and_costs_little(place: Arena) -> None:
    """The application wants to send 24 MB; the peer never gives room. Then it takes all, so nothing was lost."""
    before = memory_kb(place)
    with place.wire() as wire:
        wire.send(frames.PREFACE, frames.settings(((frames.SETTING_INITIAL_WINDOW, 0),)))
        wire.send(headers(1, connect(f"{place.far}:{BYTES}")))
        half = 12 << 20
        wire.pour(1, half)
        wire.send(data(1, b"", end=True))
        assert wire.listen(0.5).data(1) == b""
        place.unharmed()
        assert memory_kb(place) - before < 32 << 10
        wire.send(frames.window_update(1, 1 << 30), frames.window_update(0, 1 << 30))
        heard = wire.listen(20, enough=lambda h: any(f & frames.END_STREAM for f, _, _ in h.of(frames.DATA)[-1:]))
        assert len(heard.data(1)) == 2 * half


def test_a_window_that_shrinks_below_nothing_stops_us_until_it_opens(place: Arena) -> None:
    with place.wire() as wire:
        wire.send(HELLO, headers(1, connect(f"{place.far}:{LINES}")))
        wire.listen(PATIENCE_S, enough=lambda h: b"hello" in h.data(1))
        wire.send(frames.settings(((frames.SETTING_INITIAL_WINDOW, 0),)), data(1, b"echo\n"))
        assert b"echo" not in wire.listen(0.3).data(1)
        wire.send(frames.settings(((frames.SETTING_INITIAL_WINDOW, 65535),)))
        assert b"echo" in wire.listen(PATIENCE_S, enough=lambda h: b"echo" in h.data(1)).data(1)


@pytest.mark.parametrize("how", ["close_notify", "reset", "end", "garbage", "broken record"])
def test_who_leaves_in_the_middle_leaves_nothing_behind(place: Arena, how: str) -> None:
    def open_streams() -> int:
        with inside(place.lab, FAR):
            text = "".join(Path(f"/proc/thread-self/net/{name}").read_text() for name in ("tcp", "tcp6"))
        port = f":{LINES:04X}"
        return sum(
            row.split()[1].endswith(port) and row.split()[3] == "01" for row in text.splitlines()[1:] if ":" in row
        )

    before = open_streams()
    wire = place.wire()
    wire.send(HELLO, *(headers(n, connect(f"{place.far}:{LINES}")) for n in range(1, 21, 2)))
    wire.listen(PATIENCE_S, enough=lambda h: all(h.status(n) for n in range(1, 21, 2)))
    assert open_streams() >= before + 10
    raw = wire.tls
    if how == "close_notify":
        with contextlib.suppress(OSError):
            raw.unwrap()
    elif how == "reset":
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif how in ("garbage", "broken record"):
        bare = socket.socket(fileno=raw.detach())
        record = b"trailing garbage" if how == "garbage" else b"\x17\x03\x03\x00\x40" + bytes(64)
        bare.sendall(record)
        bare.settimeout(PATIENCE_S)
        with contextlib.suppress(OSError):
            while bare.recv(65536):
                pass
        bare.close()
    wire.close()
    until("every connection to the application is gone", lambda: open_streams() <= before, 5)


def test_octets_after_the_end_of_tls_are_for_nobody(place: Arena) -> None:
    """After close_notify a CONNECT in clear, on the same TCP connection, asks in vain."""
    wire = place.wire()
    wire.send(HELLO)
    wire.listen(PATIENCE_S, enough=lambda h: h.frames)
    with contextlib.suppress(OSError):
        wire.tls.unwrap()
    with socket.socket(fileno=wire.tls.detach()) as bare:
        bare.settimeout(PATIENCE_S)
        got = b""
        with contextlib.suppress(OSError):
            bare.sendall(HELLO + headers(1, connect(place.authority)))
            while part := bare.recv(65536):
                got += part
        assert b"\x88" not in got
        assert len(got) < 100, "more than TLS needs to say goodbye"


@pytest.mark.parametrize("name", ["silent", "hello"])
def test_a_handshake_that_does_not_go_on_is_given_up(slow: dict[str, Slow], name: str) -> None:
    assert slow[name].ends_within(HANDSHAKE_S + 3) > HANDSHAKE_S - 1


@pytest.mark.parametrize(
    "name", ["no greeting", "half a greeting", "no answer to PING", "half a frame", "half a block"]
)
def test_a_peer_that_answers_no_ping_is_given_up(slow: dict[str, Slow], name: str) -> None:
    assert slow[name].ends_within(KEEPALIVE_S + 4) <= KEEPALIVE_S + 4


def test_hundreds_of_slow_peers_keep_nobody_out(place: Arena) -> None:
    """Slow-loris: 300 handshakes that do not go on, and the bystander is served in between."""
    with contextlib.ExitStack() as stack:
        for index in range(300):
            sock = stack.enter_context(place.dial())
            sock.sendall(b"\x16\x03\x01\x02")
            if index % 100 == 0:
                place.unharmed()
        assert place.bystander.request() < 1
        with Wire(place.dial(), client_context(place.web)) as wire:
            wire.send(HELLO, headers(1, connect(place.authority)))
            assert wire.listen(PATIENCE_S, enough=lambda h: h.status(1)).status(1) == 200
