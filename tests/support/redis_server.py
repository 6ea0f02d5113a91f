"""A real redis-server of our own on loopback, that keeps nothing."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.waiting import until


def binary() -> str:
    """The program. Debian's package redis-server starts a service of its own; redis-tools, which does not, has the same
    program, which goes by the name that it is called."""
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    assert found, "redis-tools is missing: `./dev test lab`, `strangers` or `cluster` installs it"
    return found


def program() -> list[str]:
    """What a server's command line begins with."""
    found = binary()
    return [found] if found.endswith("redis-server") else ["bash", "-c", 'exec -a redis-server "$0" "$@"', found]


class RedisServer:
    """`start` and `kill` at will; the address stays."""

    def __init__(self, folder: Path, *words: str) -> None:
        """`words`: more of its command line."""
        self._folder = folder
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Until it answers."""
        argv = [*program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([*argv, *self._words], stdout=subprocess.DEVNULL)
        until(self._answers, "for redis-server")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server ended"
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as client:
            client.sendall(b"PING\r\n")
            return bool(client.recv(5))
        return False


@contextmanager
def redis_server(folder: Path, *words: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, *words)
    server.start()
    try:
        yield server
    finally:
        server.kill()
