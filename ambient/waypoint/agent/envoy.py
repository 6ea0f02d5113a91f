"""The Envoy process: started with its bootstrap, asked over its admin socket, drained and ended."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ambient.errors import Unavailable
from ambient.waypoint.typed import Message

_LOOK_S: Final = 0.1
_ANSWER_S: Final = 2.0
_FLUSH_MS: Final = 500
"""How long Envoy may keep lines of its access log: metrics are counted from them."""
_ACTIVE: Final = "^(http.connect_terminate|http.ingress.*|tcp.ingress.*)[.]downstream_cx_active$"
"""Connections of a waypoint's clients, and of a gateway's."""

_log = logging.getLogger("waypoint.envoy")


class Envoy:
    """One process. `folder` is ours alone and holds its bootstrap and its admin socket."""

    def __init__(self, binary: Path, folder: Path, *, threads: int, drain_s: float) -> None:
        self._binary = binary
        self._folder = folder
        self._threads = threads
        self._drain_s = drain_s
        self._process: asyncio.subprocess.Process | None = None

    @property
    def admin_socket(self) -> Path:
        return self._folder / "admin.sock"

    async def start(self, bootstrap: Message, stdout: int) -> None:
        """`stdout`: the descriptor that its access log goes to. Raises Unavailable when it cannot be started."""
        file = self._folder / "bootstrap.json"
        file.write_text(json.dumps(bootstrap))
        # Envoy ends with us, however we end: nobody would renew its certificate or tell it anything.
        argv = ["setpriv", "--pdeathsig", "KILL", "--", str(self._binary), "-c", str(file), "--disable-hot-restart"]
        argv += ["--concurrency", str(self._threads), "--log-level", "warn", "--drain-time-s", str(int(self._drain_s))]
        argv += ["--file-flush-interval-msec", str(_FLUSH_MS)]
        try:
            self._process = await asyncio.create_subprocess_exec(*argv, stdout=stdout)
        except OSError as error:
            raise Unavailable("Envoy", str(self._binary), error.strerror or str(error)) from None
        _log.info("Envoy is process %d", self._process.pid)

    async def wait(self) -> int:
        """Until it ends; its exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Not ready any more; what is under way may end within the drain time; then the process."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(Unavailable):
            await self.ask("POST", "/healthcheck/fail")
            await self.ask("POST", "/drain_listeners?graceful&skip_exit")
            loop = asyncio.get_running_loop()
            end = loop.time() + self._drain_s
            while loop.time() < end and await self._active():  # noqa: ASYNC110  (Envoy tells nobody of its last client)
                await asyncio.sleep(_LOOK_S)
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._drain_s + _ANSWER_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _active(self) -> bool:
        """Some client is still connected."""
        answer = await self.ask("GET", f"/stats?filter={quote(_ACTIVE)}")
        return any(line.rpartition(": ")[2] not in ("", "0") for line in answer.splitlines())

    async def ask(self, method: str, path: str) -> str:
        """The body of what the admin interface answers; raises Unavailable."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(str(self.admin_socket))
                try:
                    writer.write(f"{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode())
                    answer = await reader.read(-1)
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise Unavailable("Envoy's admin interface", path, str(error)) from None
        head, _, body = answer.partition(b"\r\n\r\n")
        whole = b"".join(_chunks(body)) if b"transfer-encoding: chunked" in head.lower() else body
        return whole.decode(errors="replace")


def _chunks(body: bytes) -> Iterator[bytes]:
    """RFC 9112, section 7.1."""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.partition(b";")[0] or b"0", 16)
        yield rest[:length]
        body = rest[length + 2 :] if length else b""
