"""The workers' side of the director: listens on director.sock, greets whoever connects, keeps who is there.

It interprets `Hello` only; every other message goes to the crew's owner. Workers outlive directors, so one that
connects may already serve pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from ambient.errors import InvalidInput, Unavailable
from ztunnel.ipc.channel import MAX_BACKLOG, Channel
from ztunnel.ipc.messages import Drain, Hello, PodDown, PodPolicy, PodUp, PodUpdate, Policies, ToDirector, ToWorker
from ztunnel.ipc.told import Told

CROWDED: Final = MAX_BACKLOG // 2
"""Octets that a worker has not taken yet, beyond which it is told no more policies: pods that need those are closed."""
_log = logging.getLogger("workers")


class Worker:
    """One connected worker. `pods`: uid -> error of its last PodReady ("" = serves it)."""

    def __init__(self, channel: Channel, hello: Hello) -> None:
        self._channel = channel
        self.slot = hello.slot
        self.pid = hello.pid
        self.form = hello.form
        self.claims = frozenset(hello.pods)
        self.namespaces = dict(zip(hello.pods, hello.netns, strict=False))
        self.pods: dict[str, str] = dict.fromkeys(hello.pods, "")
        self.leaving = False
        self.drained = False
        self._told = Told()

    def send(self, message: ToWorker, fds: tuple[int, ...] = ()) -> None:
        """Queue a message; on a lost connection it goes nowhere."""
        if isinstance(message, PodUp | PodUpdate):
            message = replace(message, policy=self._by_number(message.uid, message.policy))
        elif isinstance(message, PodDown):
            self._told.forget(message.uid)
        self._channel.send(message, fds)

    def _by_number(self, uid: str, policy: PodPolicy) -> PodPolicy:
        for news in self._told.news(uid, policy.policies):
            if self._channel.backlog > CROWDED:
                _log.error("worker %d is not told all policies of pod %s: they are too much", self.slot, uid)
                break
            self._tell(news)
        return self._told.short(policy)

    def _tell(self, news: Policies) -> None:
        try:
            self._channel.send(news)
        except InvalidInput as error:
            for one in news.put if len(news.put) > 1 else ():
                self._tell(Policies(put=(one,)))
            if len(news.put) == 1:
                _log.error("policy %s: %s; pods that it selects are closed", news.put[0][1].key, error)

    def close(self) -> None:
        self._channel.close()


class Owner(Protocol):
    """Who acts on what workers say."""

    def worker_joined(self, worker: Worker) -> None: ...
    def worker_left(self, worker: Worker) -> None: ...
    def worker_said(self, worker: Worker, message: ToDirector, fds: list[int]) -> None: ...


class Crew:
    """Every worker that is connected now."""

    def __init__(self, path: str, owner: Owner) -> None:
        self._path = Path(path)
        self._owner = owner
        self._workers: list[Worker] = []
        self._listener: socket.socket | None = None
        self._strangers: set[Channel] = set()

    def __iter__(self) -> Iterator[Worker]:
        """Workers that take new pods and connections (not those on their way out)."""
        return iter([worker for worker in self._workers if not worker.leaving])

    def everyone(self) -> list[Worker]:
        """Also those on their way out."""
        return list(self._workers)

    def listen(self) -> None:
        """Open director.sock for our own user only; a stale one is replaced. Raises Unavailable."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            os.fchmod(sock.fileno(), 0o600)
            sock.bind(str(self._path))
            sock.listen(64)
        except OSError as error:
            sock.close()
            raise Unavailable("cannot listen", str(self._path), error.strerror or str(error)) from None
        self._listener = sock
        asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Stop listening and hang up; workers go on without us."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            # Left behind it would say that workers of ours may still look for a director here.
            self._path.unlink(missing_ok=True)
        for worker in self._workers:
            worker.close()
        for channel in self._strangers:
            channel.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sock, _ = listener.accept()
            _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.geteuid():
                _log.warning("a process of user %d tried to be a worker", uid)
                sock.close()
                return
            self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        workers: list[Worker] = []

        def message(message: object, fds: list[int]) -> None:
            if workers:
                self._owner.worker_said(workers[0], message, fds)  # type: ignore[arg-type]
                return
            for fd in fds:
                os.close(fd)
            self._strangers.discard(channel)
            if isinstance(message, Hello):
                workers.append(Worker(channel, message))
                self._join(workers[0])
            else:
                _log.warning("a worker began with %s", type(message).__name__)
                channel.close()

        def closed() -> None:
            self._strangers.discard(channel)
            if workers:
                self._leave(workers[0], channel.failure)

        channel = Channel(asyncio.get_running_loop(), sock, message, closed)
        self._strangers.add(channel)

    def _join(self, worker: Worker) -> None:
        # Another process on its slot is a leftover of an earlier supervisor: it finishes its connections and goes.
        for other in [one for one in self if one.slot == worker.slot]:
            other.leaving = True
            other.send(Drain(deadline_s=300.0))
        self._workers.append(worker)
        claims, form = len(worker.claims), worker.form or "of unknown form"
        _log.info("worker %d (pid %d) joined, %s, serving %d pods", worker.slot, worker.pid, form, claims)
        self._owner.worker_joined(worker)

    def _leave(self, worker: Worker, why: str) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
            _log.warning("worker %d (pid %d) left%s", worker.slot, worker.pid, f": {why}" if why else "")
            self._owner.worker_left(worker)
