"""Both roles of a ZDS connection as state machines: packets in, packets and effects out; no socket, no clock.

The agent names every pod of the node (the snapshot), then what changes; it sends the next request only after the
ack of the last. ztunnel serves what it is told, drops after the snapshot what was not named, and acks each request
once it has been acted on. A connection that broke is replaced by a new pair of sessions; ztunnel's is told what it
serves already.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ambient.errors import ProtocolError
from ambient.zds.codec import (
    Ack,
    AddWorkload,
    DelWorkload,
    Hello,
    KeepWorkload,
    Request,
    SnapshotSent,
    decode_ack,
    decode_hello,
    decode_request,
    descriptors_of,
    encode_ack,
    encode_hello,
)

FIRST_RETRY_S: Final = 0.005
LAST_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Served:
    """ztunnel serves the pod."""

    uid: str


@dataclass(frozen=True, slots=True)
class NotServed:
    """ztunnel could not serve the pod; the request is repeated later, until it succeeds or the pod is deleted."""

    uid: str
    error: str


@dataclass(frozen=True, slots=True)
class Removed:
    """ztunnel has let go of the pod."""

    uid: str


@dataclass(frozen=True, slots=True)
class SnapshotDone:
    """ztunnel has every pod that was known when it connected."""


AgentEvent = Served | NotServed | Removed | SnapshotDone


class AgentSession:
    """The agent's end of one connection.

    `pods`: what the node has now. Then `add`, `delete` at any time. `next_request(now)` gives the request to send
    (`encode_request`, with the pod's namespace descriptor for an AddWorkload), or None; feed what arrives to `receive`.
    """

    def __init__(self, pods: Iterable[AddWorkload | KeepWorkload]) -> None:
        self._greeted = False
        self._queue: OrderedDict[str, Request] = OrderedDict((pod.uid, pod) for pod in pods)
        self._queue[""] = SnapshotSent()
        self._waiting: Request | None = None
        self._retries: dict[str, tuple[float, float, AddWorkload]] = {}

    def add(self, pod: AddWorkload) -> None:
        """Serve this pod; replaces what is queued for its uid."""
        self._retries.pop(pod.uid, None)
        self._queue[pod.uid] = pod

    def delete(self, uid: str) -> None:
        self._retries.pop(uid, None)
        self._queue[uid] = DelWorkload(uid)

    def next_request(self, now: float) -> Request | None:
        """The request to send now; it counts as sent. None: nothing to do, or an ack is still missing."""
        if not self._greeted or self._waiting is not None:
            return None
        for uid, (due, _, pod) in list(self._retries.items()):
            if due <= now and uid not in self._queue:
                self._queue[uid] = pod
        if not self._queue:
            return None
        self._waiting = self._queue.popitem(last=False)[1]
        return self._waiting

    def wake_at(self) -> float | None:
        """When `next_request` may have a retry to give, on the clock of its `now`; None: only after another event."""
        if self._waiting is not None or not self._retries:
            return None
        return min(due for due, _, _ in self._retries.values())

    @property
    def awaits_ack(self) -> bool:
        """A request is out: the peer has to answer within the deadline."""
        return self._waiting is not None

    def receive(self, packet: bytes, now: float) -> AgentEvent | None:
        """Take one packet of ztunnel; raises ProtocolError (close the connection then)."""
        if not self._greeted:
            decode_hello(packet)
            self._greeted = True
            return None
        request, self._waiting = self._waiting, None
        if request is None:
            raise ProtocolError("ZDS ack", why="nothing was asked")
        error = decode_ack(packet).error
        if isinstance(request, SnapshotSent):
            if error:
                raise ProtocolError("ZDS snapshot", why=f"refused by ztunnel: {error}")
            return SnapshotDone()
        if isinstance(request, DelWorkload):
            return Removed(request.uid)
        if isinstance(request, KeepWorkload):
            return NotServed(request.uid, error) if error else None
        if not error:
            self._retries.pop(request.uid, None)
            return Served(request.uid)
        if request.uid not in self._queue:
            pause = (
                min(self._retries[request.uid][1] * 2, LAST_RETRY_S) if request.uid in self._retries else FIRST_RETRY_S
            )
            self._retries[request.uid] = (now + pause, pause, request)
        return NotServed(request.uid, error)


@dataclass(frozen=True, slots=True)
class Start:
    """Serve this pod with the descriptor that came with the packet."""

    pod: AddWorkload


@dataclass(frozen=True, slots=True)
class Stop:
    """Let go of these pods (none: nothing to do but to ack)."""

    uids: tuple[str, ...] = ()


class ZtunnelSession:
    """ztunnel's end of one connection. `served`: uids that are served from an earlier connection.

    For each packet: `effect = receive(packet, number of descriptors)`, act on it, then send `finish(error)`.
    """

    def __init__(self, served: Iterable[str] = ()) -> None:
        self._served = set(served)
        self._named: set[str] | None = set()
        self._pending: dict[str, str] = {}
        self._current: Request | None = None

    def hello(self) -> bytes:
        """The first packet to send."""
        return encode_hello(Hello())

    @property
    def ready(self) -> bool:
        """The snapshot is complete and every pod is served."""
        return self._named is None and not self._pending

    @property
    def pending(self) -> dict[str, str]:
        """Pods that could not be served yet, with the reason."""
        return dict(self._pending)

    def receive(self, packet: bytes, descriptors: int) -> Start | Stop:
        """Take one packet; raises ProtocolError, which ends the session."""
        if self._current is not None:
            raise ProtocolError("ZDS request", why="sent before the last one was answered")
        request = decode_request(packet)
        if descriptors != descriptors_of(request):
            wanted = descriptors_of(request)
            raise ProtocolError("ZDS request", type(request).__name__, f"{descriptors} descriptors instead of {wanted}")
        self._current = request
        if isinstance(request, AddWorkload):
            return Start(request)
        if isinstance(request, DelWorkload):
            return Stop(() if self._named is not None or request.uid not in self._served else (request.uid,))
        if self._named is None:
            raise ProtocolError("ZDS request", type(request).__name__, "only allowed before the end of the snapshot")
        if isinstance(request, SnapshotSent):
            return Stop(tuple(sorted(self._served - self._named)))
        return Stop()

    def finish(self, error: str = "") -> bytes:
        """Record how acting on the last request went; returns the ack to send."""
        request, self._current = self._current, None
        if request is None:
            raise ProtocolError("ZDS ack", why="nothing was asked")
        if isinstance(request, AddWorkload):
            self._start_finished(request.uid, error)
        elif isinstance(request, KeepWorkload) and self._named is not None:
            self._named.add(request.uid)
        elif isinstance(request, DelWorkload):
            self._delete(request.uid)
        elif isinstance(request, SnapshotSent) and self._named is not None and not error:
            self._served &= self._named
            self._named = None
        return encode_ack(Ack(error))

    def recovered(self, uid: str) -> None:
        """A pending pod is served now (ztunnel retries by itself)."""
        if self._pending.pop(uid, None) is not None:
            self._served.add(uid)

    def _start_finished(self, uid: str, error: str) -> None:
        if self._named is not None:
            self._named.add(uid)
        if error:
            self._pending[uid] = error
        else:
            self._pending.pop(uid, None)
            self._served.add(uid)

    def _delete(self, uid: str) -> None:
        self._pending.pop(uid, None)
        if self._named is not None:
            self._named.discard(uid)
        else:
            self._served.discard(uid)
