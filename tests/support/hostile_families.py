"""Families of hostile peers that come again and again, for measuring what their neighbours feel.

Each family is made of acts: one act is one hostile connection from beginning to end, or one that is held. A swarm runs
in a process of its own, and only where a processor has nothing else to do: peers of other machines take no time of this
one, and what is measured is ztunnel's fairness and not the scheduler's. That takes a control group that is idle as a
whole: between sessions the scheduler compares their groups, in which it does not see that a process is.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from tests.support.arena import Arena
from tests.support.hostile_peer import HELLO, Wire, connect, data, headers
from tests.support.hostile_rows import ENDED, RESET, Peer
from tests.support.journey import BYTES
from tests.support.mint import client_context, spiffe
from ztunnel.hbone import frames
from ztunnel.hbone.frames import Code

ANSWER_S = 1.0
HELD = 60
"""How many connections a family holds that holds them."""
HONEST = "for comparison: honest tunnels, one request each"
"""No hostile peers: what the others feel of so many that do nothing wrong."""
_FORK = multiprocessing.get_context("fork")

Act = Callable[[Arena], "contextlib.AbstractContextManager[object] | None"]
"""What it returns is held until the swarm ends."""


def _row(peer: Peer) -> Act:
    def act(place: Arena) -> None:
        with place.wire() as wire:
            wire.send(peer.says(place.authority.encode()))
            if peer.words:
                wire.listen(ANSWER_S)
            else:
                wire.listen(ANSWER_S, enough=lambda heard: heard.reset(1) is not None)

    return act


def _held(words: Callable[[Arena], bytes]) -> Act:
    def act(place: Arena) -> Wire:
        wire = place.wire()
        wire.send(words(place))
        return wire

    return act


def _raw(words: bytes, *, hold: bool = False) -> Act:
    def act(place: Arena) -> socket.socket | None:
        sock = place.dial()
        sock.sendall(words)
        if hold:
            return sock
        sock.close()
        return None

    return act


def _stranger(place: Arena) -> None:
    with (
        contextlib.suppress(OSError),
        Wire(place.dial(), client_context(place.mint.stranger().leaf(spiffe("web")))) as one,
    ):
        one.send(HELLO, headers(1, connect(place.authority)))
        one.listen(ANSWER_S)


def _honest(place: Arena) -> None:
    with place.wire() as wire:
        wire.send(HELLO, headers(1, connect(place.authority)), data(1, b"GET /id HTTP/1.0\r\n\r\n"))
        wire.listen(ANSWER_S, enough=lambda heard: any(payload for _, _, payload in heard.of(frames.DATA)))


def _denied(place: Arena) -> None:
    with place.wire() as wire:
        wire.send(HELLO, *(headers(n, connect("127.0.0.1:22")) for n in range(1, 401, 2)))
        wire.listen(ANSWER_S, enough=lambda heard: len(heard.of(frames.HEADERS)) >= 200)


def _reset_tcp(place: Arena) -> None:
    with place.wire() as wire:
        wire.send(HELLO, headers(1, connect(place.authority)))
        wire.tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _rapid_reset(place: Arena) -> None:
    request = connect(place.authority)
    with place.wire() as wire:
        wire.send(HELLO, *(headers(n, request) + frames.rst_stream(n, Code.CANCEL) for n in range(1, 500, 2)))
        wire.listen(ANSWER_S)


def _octets(place: Arena) -> None:
    with place.wire() as wire:
        wire.send(HELLO, headers(1, connect(place.authority)), data(1, b"x") * 2_000)
        wire.listen(0.05)


def _zero_window(place: Arena) -> Wire:
    wire = place.wire()
    wire.send(frames.PREFACE, frames.settings(((frames.SETTING_INITIAL_WINDOW, 0),)))
    target = connect(f"{place.far}:{BYTES}")
    wire.send(*(headers(n, target) + data(n, bytes(16_000), end=True) for n in (1, 3, 5)))
    return wire


def _beyond_the_window(place: Arena) -> None:
    with place.wire() as wire:
        wire.send(HELLO, headers(1, connect(f"{place.far}:{BYTES}")))
        for _ in range(6):
            wire.send(data(1, bytes(1 << 20)))
        wire.listen(0.1)


def _by_reason() -> Iterator[tuple[str, list[Act]]]:
    rows = [*ENDED.values(), *RESET.values()]
    for reason in sorted({peer.reason for peer in rows}):
        yield f"breaks the rule: {reason}", [_row(peer) for peer in rows if peer.reason == reason]


FAMILIES: Mapping[str, list[Act]] = MappingProxyType(
    {
        **dict(_by_reason()),
        "octets that are no TLS": [_raw(bytes(4096)), _raw(b"GET / HTTP/1.1\r\n\r\n")],
        "certificates of strangers": [_stranger],
        "TLS that does not go on, held": [_raw(b"\x16\x03\x01\x02", hold=True), _raw(b"", hold=True)],
        "no preface, held": [_held(lambda _: b""), _held(lambda _: frames.PREFACE[:10])],
        "half a frame, held": [_held(lambda _: HELLO + frames.HEADER.pack(0xFF, 0, frames.HEADERS, 4, 1) + b"x")],
        "half a header block, held": [_held(lambda _: HELLO + headers(1, b"", flags=0))],
        "streams without a window, held": [_zero_window],
        "200 denied requests at once": [_denied],
        "rapid reset": [_rapid_reset],
        "TCP reset under a request": [_reset_tcp],
        "DATA of one octet": [_octets],
        "megabytes beyond the window": [_beyond_the_window],
        HONEST: [_honest],
    }
)


@contextmanager
def _idle_group() -> Iterator[Path]:
    """A control group whose processes run when nobody else wants to (kernel: cgroup-v2.rst, cpu.idle). OSError where
    there is none to be had."""
    v1 = Path("/sys/fs/cgroup/cpu")
    group = (v1 if v1.is_dir() else Path("/sys/fs/cgroup")) / f"swarm-{os.getpid()}"
    group.mkdir()
    try:
        (group / "cpu.idle").write_text("1")
        yield group
    finally:
        group.rmdir()


def _swarm(place: Arena, acts: list[Act], per_second: float, group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()))
    held: list[contextlib.AbstractContextManager[object]] = []
    begin, number = time.monotonic(), 0
    while True:
        time.sleep(max(0.0, begin + number / per_second - time.monotonic()))
        with contextlib.suppress(OSError):
            one = acts[number % len(acts)](place)
            if one is not None:
                held.append(one)
        if len(held) > HELD:
            held.pop(0).__exit__(None, None, None)
        number += 1


@contextmanager
def swarm(place: Arena, family: str, per_second: float) -> Iterator[None]:
    """The family comes `per_second`, again and again, until the end."""
    with _idle_group() as group:
        process = _FORK.Process(target=_swarm, args=(place, FAMILIES[family], per_second, group), daemon=True)
        process.start()
        try:
            yield
            assert process.is_alive(), f"the swarm of {family} died"
        finally:
            process.kill()
            process.join()
