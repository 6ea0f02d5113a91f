"""Forwarding of questions to real resolvers, from inside the asking pod's network namespace."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from ambient.errors import InvalidInput, MeshError
from ambient.model.address import Endpoint, parse_endpoint, parse_ip
from ambient.model.dns import Query, answers_to, with_id
from ztunnel.dns.measure import came_back, dns_labels, forwarded
from ztunnel.dns.stream import MessageEnd
from ztunnel.ipc.messages import NameAnswer
from ztunnel.proxy.asks import AskCache
from ztunnel.proxy.dial import Dial
from ztunnel.proxy.plane import Plane
from ztunnel.proxy.pod import Pod

NameKey = tuple[str, str, str]
Answered = Callable[[bytes | None], None]

TRY_S: Final = 2.5
TRIES: Final = 2
IN_FLIGHT_LIMIT: Final = 512
_DNS_PORT: Final = 53


class Resolvers:
    """What the DNS servers of all pods share: answers of the director, and the questions under way."""

    def __init__(self, plane: Plane, names: AskCache[NameKey, NameAnswer]) -> None:
        self.plane = plane
        self.names = names
        self._under_way: dict[str, set[_Forward]] = {}

    def targets(self, dialled: Endpoint | None) -> list[Endpoint]:
        """Resolvers to try in order: the configured ones, else the one the pod itself had dialled (if it had)."""
        found: list[Endpoint] = []
        for text in self.plane.settings.upstream_resolvers:
            with contextlib.suppress(InvalidInput):
                found.append(_resolver(text))
        return found or ([] if dialled is None else [dialled])

    def forward(
        self, pod: Pod, query: Query, data: bytes, dialled: Endpoint | None, done: Answered, *, stream: bool
    ) -> None:
        """Pass a question on; `done` gets the answer under the asker's id, or None."""
        under_way = self._under_way.setdefault(pod.uid, set())
        if len(under_way) >= IN_FLIGHT_LIMIT:
            self.plane.recorder.counters.count("dns_in_flight_limit")
            done(None)
            return

        counters, labels = self.plane.recorder.counters, dns_labels(query.qtype, pod.labels, stream=stream)
        began = self.plane.clock()

        def over(answer: bytes | None) -> None:
            under_way.discard(question)
            came_back(counters, labels, self.plane.clock() - began, answered=answer is not None)
            done(answer)

        forwarded(counters, labels)
        question = _Forward(self.plane, pod, query, data, self.targets(dialled), over, stream=stream)
        under_way.add(question)
        question.begin()

    def drop(self, uid: str) -> None:
        """The pod is gone: forget its questions."""
        for question in self._under_way.pop(uid, ()):
            question.cancel()


def _resolver(text: str) -> Endpoint:
    try:
        return Endpoint(parse_ip(text), _DNS_PORT)
    except InvalidInput:
        return parse_endpoint(text)


class _Forward:
    """One question on its way: a socket and id of its own per attempt."""

    __slots__ = (
        "_attempt",
        "_data",
        "_done",
        "_number",
        "_plane",
        "_pod",
        "_query",
        "_sock",
        "_stream",
        "_targets",
        "_tcp",
        "_timer",
    )

    def __init__(
        self,
        plane: Plane,
        pod: Pod,
        query: Query,
        data: bytes,
        targets: list[Endpoint],
        done: Answered,
        *,
        stream: bool,
    ) -> None:
        self._plane = plane
        self._pod = pod
        self._query = query
        self._data = data
        self._targets = targets
        self._done: Answered | None = done
        self._stream = stream
        self._attempt = 0
        self._number = 0
        self._sock: socket.socket | None = None
        self._tcp: _TcpQuestion | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Try the next resolver."""
        self._release()
        if self._attempt >= max(TRIES, len(self._targets)) or not self._targets:
            self._finish(None)
            return
        target = self._targets[self._attempt % len(self._targets)]
        self._attempt += 1
        self._number = self._plane.random_bits(16)
        data = with_id(self._data, self._number)
        self._timer = self._plane.loop.call_later(TRY_S, self.begin)
        try:
            if self._stream:
                self._tcp = _TcpQuestion(self._plane, self._pod, target, data, self._received, self._failed)
                return
            sock = self._sock = self._pod.sockets.udp(target.ip.version)
            sock.connect((str(target.ip), target.port))
            sock.send(data)
        except (MeshError, OSError):
            self._plane.loop.call_soon(self._failed)
            return
        self._plane.loop.add_reader(sock.fileno(), self._readable)

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        self._done = None
        self._release()

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(65_535)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._failed()
            return
        self._received(data)

    def _received(self, data: bytes) -> None:
        if answers_to(self._query, self._number, data):
            self._finish(with_id(data, self._query.id))
        else:
            self._plane.recorder.counters.count("dns_mismatched_answers")

    def _failed(self) -> None:
        if self._done is not None:
            self.begin()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sock is not None:
            self._plane.loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
        if self._tcp is not None:
            self._tcp.cancel()
            self._tcp = None

    def _finish(self, answer: bytes | None) -> None:
        self._release()
        done, self._done = self._done, None
        if done is not None:
            done(answer)


class _TcpQuestion:
    """One question over TCP, with its length before it."""

    __slots__ = ("_data", "_dial", "_end", "_failed", "_plane", "_received", "_sock")

    def __init__(
        self,
        plane: Plane,
        pod: Pod,
        target: Endpoint,
        data: bytes,
        received: Callable[[bytes], None],
        failed: Callable[[], None],
    ) -> None:
        self._plane = plane
        self._data = data
        self._received = received
        self._failed = failed
        self._end: MessageEnd | None = None
        self._sock = pod.sockets.tcp(target.ip.version)
        # Through the loop: a connection that is up at once must not call back into a half-made object.
        self._dial: Dial | None = None
        plane.loop.call_soon(self._start, target)

    def _start(self, target: Endpoint) -> None:
        if self._sock.fileno() >= 0:
            self._dial = Dial(self._plane.poller, self._sock, target, TRY_S, self._connected)

    def _connected(self, error: OSError | None) -> None:
        if error is not None:
            self._sock.close()
            self._failed()
            return
        self._end = MessageEnd(self._plane, self._sock, self._received, lambda: self._failed())
        self._end.send(self._data)
        self._end.start_reading()

    def cancel(self) -> None:
        if self._dial is not None:
            self._dial.cancel()
        if self._end is not None:
            self._end.close()
        self._sock.close()
