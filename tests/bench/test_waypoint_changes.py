"""The load under which waypoints change counts whatever is no whole answer, and says so when it has lost a client."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.support.lab import until
from tests.support.waypoint_changes import LOAD, Told, loaded

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole"
RATE = 200


class Answering:
    """Answers each request with WHOLE; one of them, once, with `odd`, and closes."""

    def __init__(self, odd: bytes) -> None:
        self._odd = [odd] if odd else []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.answered = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while connection.recv(65536):
                with self._lock:
                    self.answered += 1
                    odd = self._odd.pop() if self.answered > RATE // 4 and self._odd else b""
                connection.sendall(odd or WHOLE)
                if odd:
                    return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self._open):
            one.close()


def under_load(odd: bytes, program: str = LOAD) -> Told:
    with contextlib.closing(Answering(odd)) as server, started(program, server.host) as load, loaded(load) as told:
        until("it goes on after the odd one", lambda: server.answered >= RATE // 2)
    return told


@contextlib.contextmanager
def started(program: str, host: str) -> Iterator[subprocess.Popen[str]]:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", program, str(RATE), host], text=True, **pipes) as load:
        try:
            yield load
        finally:
            load.kill()


def test_whole_answers_are_all_there_is() -> None:
    told = under_load(b"")
    assert told.seen.keys() == {"200"}
    assert told.seen["200"] >= RATE // 2


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (WHOLE[:-2], "IncompleteRead"),
        (b"nothing of the kind\r\n\r\n", "BadStatusLine"),
        (WHOLE[:9], "BadStatusLine"),
        (b"HTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", "503"),
    ],
    ids=["cut short", "no answer", "cut in its head", "refused"],
)
def test_sabotage_one_answer_that_is_none_is_reported(odd: bytes, said: str) -> None:
    (bad,) = [(what, count) for what, count in under_load(odd).seen.items() if what != "200"]
    assert bad[0].startswith(said)
    assert bad[1] == 1


def test_sabotage_a_client_that_falls_over_is_not_passed_over() -> None:
    deaf = LOAD.replace("(OSError, http.client.HTTPException)", "OSError")
    assert deaf != LOAD
    with pytest.raises(AssertionError, match="IncompleteRead"):
        under_load(WHOLE[:-2], deaf)
