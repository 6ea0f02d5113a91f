"""The load generator counts what is late, what comes after the measuring, and gives up what is stuck."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.waiting import until

SOURCE = Path(__file__).parents[2] / "bench" / "load.c"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere"


class Asked:
    """A client of one connection in slices, and the server's end of it in our hands."""

    def __init__(self, process: subprocess.Popen[bytes], server: socket.socket) -> None:
        self.server = server
        self._process = process

    def say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def has_read(self) -> bool:
        """Every line that was said."""
        assert self._process.stdin
        left: int = struct.unpack("i", fcntl.ioctl(self._process.stdin, termios.FIONREAD, bytes(4)))[0]
        return not left

    def found(self) -> dict[str, float]:
        assert self._process.stdout
        figures: dict[str, float] = json.loads(self._process.stdout.readline())
        return figures


Asking = Callable[[int, int], Asked]


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    """Built with so many milliseconds for what is late and for what is stuck, and connected."""
    running: list[subprocess.Popen[bytes]] = []
    listener = socket.create_server(("127.0.0.1", 0))
    taken: list[socket.socket] = []

    def ask(settle_ms: int, stuck_ms: int) -> Asked:
        argv = [_build(tmp_path, settle_ms, stuck_ms), "rr", "127.0.0.1", str(listener.getsockname()[1]), "1", "-"]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        running.append(process)
        taken.append(listener.accept()[0])
        asked = Asked(process, taken[0])
        assert asked.found() == {"up": 1}
        return asked

    yield ask
    for process in running:
        process.kill()
        process.communicate()
    for one in (*taken, listener):
        one.close()


def _build(folder: Path, settle_ms: int, stuck_ms: int) -> str:
    compiler = next(name for name in ("cc", "clang", "gcc") if shutil.which(name))
    limits = [f"-DSETTLE_NS={settle_ms}000000ull", f"-DSTUCK_NS={stuck_ms}000000ull"]
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", *limits, "-o", folder / "load", SOURCE], check=True)
    return str(folder / "load")


def test_an_answer_after_the_measuring_is_a_sample_if_the_question_was_asked_in_it(asking: Asking) -> None:
    asked = asking(60_000, 60_000)
    asked.say("0 0")
    assert asked.server.recv(4096).startswith(b"GET ")
    asked.say("stop")
    until(asked.has_read)
    asked.server.sendall(ANSWER)
    found = asked.found()
    assert (found["count"], found["all"], found["late"]) == (0, 1, 0)
    assert found["p50_us"] > 0


def test_what_has_no_answer_is_a_sample_of_its_wait_and_the_slice_ends(asking: Asking) -> None:
    asked = asking(20, 60_000)
    asked.say("0 0.01")
    found = asked.found()
    assert (found["count"], found["late"], found["errors"]) == (0, 1, 0)
    assert found["p99_us"] >= 30_000, "what was measured, and the time for late ones"


def test_a_connection_that_is_stuck_is_given_up_however_short_the_slices(asking: Asking) -> None:
    asked, errors = asking(20, 100), []
    for _ in range(50):
        asked.say("0 0.01")
        errors.append(asked.found()["errors"])
    assert sum(errors) == 1


def test_bulk_is_refused_in_slices(tmp_path: Path) -> None:
    argv = [_build(tmp_path, 20, 20), "bulk", "127.0.0.1", "1", "1", "-"]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert (done.returncode, b"buffers" in done.stderr) == (2, True)
