"""Connections between two pods of a node on the kernel path, many at once, of every kind, while policy comes and goes:
each octet is checked, and each connection ends as it was meant to, or was cut by the policy.
"""

from __future__ import annotations

import array
import fcntl
import hashlib
import random
import select
import socket
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.support.capture_world import World
from tests.support.waiting import until

_LARGEST: Final = 400_000
_PATIENCE_S: Final = 60.0
_HEADER: Final = 8
_WINDOW: Final = 16_384
_FULL: Final = 4_096
KINDS: Final = ("whole", "whole", "slow reader", "stalled reader", "urgent", "reset", "empty")
"""`whole` ends its half of the connection when it has sent all, and so do those that follow but `reset`. `urgent`: with
an urgent octet in the middle, which the other end does not get among the others."""

Dial = Callable[[], socket.socket]


@dataclass
class Churn:
    """What came of it. `wrong`: connections whose octets were not those sent, or that failed when nothing cut them."""

    done: Counter[str] = field(default_factory=Counter)
    octets: int = 0
    cut: int = 0
    wrong: list[str] = field(default_factory=list)


def dialled(world: World, target: tuple[str, int], patience_s: float = _PATIENCE_S) -> socket.socket:
    """A connection of the world's `pod`, IPv4."""
    client = world.socket(world.pod, socket.AF_INET)
    try:
        client.settimeout(patience_s)
        client.connect(target)
    except BaseException:
        client.close()
        raise
    return client


def serve(listener: socket.socket) -> threading.Thread:
    """Answer each connection with the digest of all it sends before its end, then with the same octets again; ends
    with the listener."""

    def accepting() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accepting, daemon=True)
    thread.start()
    return thread


def _answer(connection: socket.socket) -> None:
    with connection:
        connection.settimeout(_PATIENCE_S)
        try:
            data = _until_end(connection)
            connection.sendall(hashlib.sha256(data).digest() + data)
        except OSError:
            return  # the client reset it, or policy cut it


def _until_end(connection: socket.socket) -> bytes:
    data = bytearray()
    while more := connection.recv(1 << 16):
        data += more
    return bytes(data)


def churn(
    dial: Dial, seconds: float, seed: int, threads: int = 4, cutting: Callable[[], bool] = lambda: False
) -> Churn:
    """`dial` gives a connected client; `cutting` says whether policy cuts connections at the moment."""
    found, until, lock = Churn(), time.monotonic() + seconds, threading.Lock()

    def work(number: int) -> None:
        dice = random.Random(seed * 1_000 + number)
        while time.monotonic() < until:
            kind = dice.choice(KINDS)
            before = cutting()
            try:
                sent = talk(dial, kind, dice)
            except OSError as error:
                with lock:
                    if before or cutting():
                        found.cut += 1
                    else:
                        found.wrong.append(f"{kind}: {error!r}")
                continue
            with lock:
                if sent < 0:
                    found.wrong.append(f"{kind}: other octets came back")
                found.done[kind] += 1
                found.octets += max(0, sent)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    return found


def _stand_still(client: socket.socket, octets: int) -> None:
    """Read nothing before so much has come, or the connection has ended. Raises OSError when neither happens."""
    ended = select.poll()
    ended.register(client, select.POLLRDHUP)

    def come() -> bool:
        waiting = array.array("i", [0])
        fcntl.ioctl(client, termios.FIONREAD, waiting)
        return waiting[0] >= octets or bool(ended.poll(0))

    try:
        until(come, patience_s=_PATIENCE_S)
    except AssertionError:
        raise TimeoutError("nothing comes to a reader that stands still") from None


def talk(dial: Dial, kind: str, dice: random.Random) -> int:
    """One connection of this kind; how many octets went each way, -1 when what came back is something else."""
    data = b"" if kind == "empty" else dice.randbytes(dice.randint(1, _LARGEST))
    with dial() as client:
        client.settimeout(_PATIENCE_S)
        if kind == "reset":
            client.sendall(data[:_HEADER])
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            return 0
        if kind in ("slow reader", "stalled reader"):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)
        client.sendall(data[: len(data) // 2])
        if kind == "urgent":
            client.send(b"!", socket.MSG_OOB)
        client.sendall(data[len(data) // 2 :])
        client.shutdown(socket.SHUT_WR)
        if kind == "stalled reader":
            _stand_still(client, min(_FULL, len(data)))
        back = bytearray()
        while more := client.recv(1_000 if kind == "slow reader" and len(back) < _WINDOW else 1 << 16):
            back += more
    if bytes(back) == hashlib.sha256(data).digest() + data:
        return len(data)
    return -1
