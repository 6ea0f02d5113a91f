"""An HBONE session inside a stream of another tunnel: the way through a gateway to another network (double HBONE).

The gateway carries it and can read nothing of it. It serves one connection of an application and is never shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from ambient.errors import MeshError, ProtocolError
from ztunnel.hbone.connection import Connection
from ztunnel.hbone.frames import Code
from ztunnel.hbone.limits import Violation, violated
from ztunnel.hbone.message import Answer, Request
from ztunnel.hbone.stream import Sink, Stream
from ztunnel.proxy.backlog import Backlog, Chunks
from ztunnel.proxy.gathered import Gathered
from ztunnel.proxy.tunnel import HANDSHAKE_TIMEOUT_S, LOST, Tunnel, Waiting
from ztunnel.tls.contexts import Credentials
from ztunnel.tls.revocation import PeerRevoked, revoked_by
from ztunnel.tls.session import TlsSession
from ztunnel.tls.verify import verify_server

if TYPE_CHECKING:
    from ztunnel.proxy.plane import Plane

HIGH_WATER: Final = 256 * 1024
LINGER_S: Final = 5.0
"""How long the gateway may take to end its half of the stream after we have ended ours."""


class User(Protocol):
    """Whose connection it is."""

    def inner_ready(self, identity: str) -> None:
        """The far end proved to be `identity`, one of those expected: open the stream."""

    def inner_failed(self, error: MeshError | OSError | None) -> None:
        """It never became ready."""


class NestedTunnel:
    """The sink of the outer stream and the owner of the inner connection `core`."""

    __slots__ = (
        "_backlog",
        "_born",
        "_closing_since",
        "_dirty",
        "_expected",
        "_outer",
        "_plain",
        "_plane",
        "_relief",
        "_session",
        "_stream",
        "_user",
        "closed",
        "congested",
        "core",
        "death",
        "established",
        "gathered",
        "write",
    )

    def __init__(
        self,
        plane: Plane,
        outer: Tunnel,
        stream: Stream,
        credentials: Credentials,
        expected: tuple[str, ...],
        user: User,
        chunks: Chunks,
    ) -> None:
        self._plane = plane
        self._outer = outer
        self._stream = stream
        self._expected = expected
        self._user = user
        self._session = TlsSession(credentials.client, server=False)
        self._backlog = Backlog(chunks)
        self.gathered = Gathered(plane.buffers.chunks, self._encrypt, self._flush_soon)
        self.write = self.gathered.write
        """Send octets by the end of this turn (Owner of the inner connection)."""
        self._plain = plane.buffers.nested
        self._relief: list[Waiting] = []
        self._dirty = False
        self._born = plane.clock()
        self._closing_since: float | None = None
        self.core = Connection(self, client=True, limits=plane.limits(client=True))
        self.congested = False
        self.death: MeshError | OSError | None = None
        self.established = False
        self.closed = False

    def begin(self) -> None:
        """The outer stream is up: start TLS in it."""
        self._plane.tunnels.add(self)
        self._handshake()

    def tick(self, now: float) -> None:
        """Once a second."""
        if self._closing_since is not None:
            if now - self._closing_since > LINGER_S:
                self.drop()
        elif self.established:
            self.core.tick(now)
        elif now - self._born > HANDSHAKE_TIMEOUT_S:
            self._down(ProtocolError("TLS handshake", "inside the gateway's tunnel", "timed out"))

    def shut(self) -> None:
        """The connection is over: say so to the far end, then to the gateway."""
        if not self.closed and self._closing_since is None:
            self._closing_since = self._plane.clock()
            self.gathered.seal()
            self._session.close()
            self._pump()

    def drop(self) -> None:
        """End it at once."""
        if not self.closed:
            self.closed = True
            self._plane.tunnels.discard(self)
            self._backlog.clear()
            self._stream.reset(Code.CANCEL)
            self.core.lost(LOST)
            self._session.release()

    def unsent(self) -> bool:
        """Octets of a stream that has ended wait here."""
        return not self.closed and self._backlog.size > 0

    def end_if_revoked(self) -> None:
        """What is revoked has changed."""
        if self.established and not self.closed:
            try:
                self._plane.revocations.refuse_revoked(self._session.chain)
            except MeshError as error:
                self._plane.recorder.counters.count(revoked_by("source"))
                self.death = error
                self.drop()

    def fail(self, _error: OSError | None) -> None:
        """Our handling of it crashed."""
        self._down(None)

    def await_relief(self, end: Waiting) -> None:
        """Call `on_room` when the tunnel is no longer congested."""
        self._relief.append(end)

    # --- owner of the inner connection

    def on_request(self, stream: Stream, request: Request) -> Sink:
        raise ProtocolError("request on a client's connection")

    def on_going_away(self) -> None:
        """No other stream will be opened on it anyway."""

    def on_violation(self, violation: Violation) -> None:
        if violation.reason:
            self._plane.recorder.counters.count(violated(violation.reason))
        if self.core.broken is not None:
            self._plane.loop.call_soon(self._down, ProtocolError("HTTP/2", "", violation.text))

    # --- sink of the outer stream

    def on_answer(self, answer: Answer) -> None:
        """It was answered before there was anything inside."""

    def on_data(self, data: memoryview) -> bool:
        if not self.closed and self._closing_since is None:
            self._session.feed(data)
            if self.established or self._handshake():
                self._decrypt()
        return True

    def on_end(self) -> None:
        if self._closing_since is not None:
            self.drop()
        else:
            self._down(None)

    def on_reset(self, code: int, *, untouched: bool) -> None:
        self._down(None)

    def on_room(self) -> None:
        self._pump()

    # --- octets

    def flush(self) -> None:
        """End of the turn: send what was encrypted."""
        self._dirty = False
        self._pump()

    def _encrypt(self, data: memoryview) -> None:
        if not self.closed:
            self._session.write(data)

    def _flush_soon(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._plane.flush_soon(self)

    def _pump(self) -> None:
        self.gathered.seal()
        if self.closed:
            return
        data, backlog, stream, outer = self._session.pending(), self._backlog, self._stream, self._outer
        if data:
            backlog.append(data)
        while backlog.size:
            room = stream.room()
            if room <= 0:
                stream.await_room()
                break
            if outer.congested:
                outer.await_relief(self)
                break
            head, space = backlog.head()[0], outer.gathered.space()
            size = min(room, len(head), stream.fits(len(space)))
            space[9 : 9 + size] = head[:size]
            backlog.drop(size)
            outer.gathered.put(stream.fill(space, size))
        if not backlog.size and self._closing_since is not None:
            stream.end()
        if backlog.size > HIGH_WATER:
            self.congested = True
        elif self.congested and backlog.size <= HIGH_WATER >> 2:
            self.congested = False
            waiting, self._relief = self._relief, []
            for end in waiting:
                end.on_room()

    def _handshake(self) -> bool:
        try:
            done = self._session.handshake()
            self._pump()
            if not done or self.closed:
                return False
            self._plane.revocations.refuse_revoked(self._session.chain)
            identity = verify_server(self._session.certificate(), self._expected)
        except MeshError as error:
            if isinstance(error, PeerRevoked):
                self._plane.recorder.counters.count(revoked_by("source"))
            self._pump()
            self._down(error)
            return False
        self.established = True
        self.core.start()
        self._user.inner_ready(str(identity))
        return not self.closed

    def _decrypt(self) -> None:
        session, plain = self._session, self._plain
        try:
            while (size := session.read_into(plain)) > 0:
                self.core.receive(plain[:size])  # it is the outer tunnel that gives way
                if self.closed or self._closing_since is not None:
                    return
        except ProtocolError as error:
            self._plane.recorder.counters.count("tls_errors")
            self._down(error)
            return
        if size < 0:
            self._down(None)

    def _down(self, error: MeshError | OSError | None) -> None:
        if self.closed:
            return
        established = self.established
        self.drop()
        if not established:
            self._user.inner_failed(error)
