"""A TCP connection that carries HBONE: socket, TLS session and HTTP/2 connection in one, either role.

What is to be sent in a turn of the loop is gathered, encrypted in one go and leaves in one `send`: with many streams at
work a TLS record carries the frames of all of them.
"""

from __future__ import annotations

import socket
import ssl
from functools import partial
from time import thread_time
from typing import TYPE_CHECKING, Final, Protocol

from ambient.errors import MeshError, ProtocolError
from ztunnel.hbone.connection import Connection
from ztunnel.hbone.limits import Violation, violated
from ztunnel.hbone.message import Request
from ztunnel.hbone.stream import Sink, Stream
from ztunnel.proxy.gathered import Gathered
from ztunnel.proxy.socket_end import Buffers, SocketEnd
from ztunnel.proxy.sockets import unconfirmed
from ztunnel.tls.records import Records
from ztunnel.tls.revocation import PeerRevoked, revoked_by
from ztunnel.tls.session import TlsSession

if TYPE_CHECKING:
    from ztunnel.proxy.pod import Pod

TUNNEL_HIGH_WATER: Final = 1 << 20
HANDSHAKE_TIMEOUT_S: Final = 10.0
LOST: Final = -1
"""Code of `Sink.on_reset` when the connection below went away."""
_UNREAD_LIMIT: Final = 16 << 20
_FEED_AT: Final = Buffers.SIZE - 32_768
SLICE_S: Final = 0.002
"""How long one tunnel may be worked on while others wait; a little more, as a piece is never divided."""
WORK_AT_ONCE: Final = 128
"""Frames of one tunnel that are gone through while others wait; requests count for more."""
_NOTHING: Final = memoryview(b"")
_FIRST_REACH: Final = 4_096
"""Most handshakes need no more at a time."""
_SMALLEST_REACH: Final = 512
_LARGE_REACH: Final = 32_768


class Waiting(Protocol):
    """Who wants to know when a congested tunnel takes octets again."""

    def on_room(self) -> None:
        """It does."""


class Tunnel(SocketEnd):
    """Subclasses say who may be at the other end and what happens when it is up or gone."""

    __slots__ = (
        "_dirty",
        "_net",
        "_plain",
        "_reach",
        "_records",
        "_relief",
        "_slow",
        "born",
        "computing",
        "core",
        "death",
        "delayed",
        "established",
        "gathered",
        "plane",
        "pod",
        "reads",
        "session",
        "write",
    )

    def __init__(self, pod: Pod, sock: socket.socket, context: ssl.SSLContext, *, server: bool) -> None:
        plane = pod.plane
        super().__init__(plane.poller, sock, TUNNEL_HIGH_WATER, plane.crashed, pod.buffers.chunks)
        self.plane = plane
        self.pod = pod
        self.session = TlsSession(context, server=server)
        self.gathered = Gathered(plane.buffers.chunks, self._encrypt, self._flush_soon)
        self.write = self.gathered.write
        """Send octets by the end of this turn (Owner of the HTTP/2 connection)."""
        self.core = Connection(self, client=not server, limits=plane.limits(client=not server))
        self.core.work_at_once = WORK_AT_ONCE
        self.established = False
        self.computing = False
        """A step of the handshake is with the thread for them, or waits for it: nothing may be asked of the session."""
        self.delayed = 0.0
        """Seconds in which the peer waited for us, not we for it; no figure while it does."""
        self.reads = 0
        """How often something came from the peer."""
        self.death: MeshError | OSError | None = None
        """What ended the connection, if it was not an orderly end."""
        self.born = plane.clock()
        self._records = Records()
        self._net = plane.buffers.net
        self._plain = plane.buffers.plain
        self._reach = _FIRST_REACH
        """How many octets are read, and how many decrypted ones handed on, at a time."""
        self._slow = False
        """The last piece was large and took long, by the clock on the wall."""
        self._dirty = False
        self._relief: list[Waiting] = []
        plane.tunnels.add(self)

    # --- what subclasses define

    def verify(self, certificate: dict[str, object] | None) -> None:
        """The handshake is complete. Raise MeshError to refuse the peer; nothing was said to it yet."""
        raise NotImplementedError

    def on_established(self) -> None:
        """The peer is who it should be, and streams may be opened."""

    def on_down(self, error: MeshError | OSError | None) -> None:
        """The connection is gone; its streams have been told."""
        raise NotImplementedError

    def on_request(self, stream: Stream, request: Request) -> Sink:
        raise ProtocolError("request on a client's connection")

    def on_going_away(self) -> None:
        """The peer accepts no new streams."""

    # --- life

    def begin(self) -> None:
        """The TCP connection is up: start TLS."""
        if self.core.client:
            self._shake()
        else:
            self.start_reading()

    def tick(self, now: float) -> None:
        """Once a second."""
        if self.established:
            self.core.tick(now)
        elif now - self.born > HANDSHAKE_TIMEOUT_S:
            self.shut(ProtocolError("TLS handshake", "", "timed out"))

    def shut(self, error: MeshError | OSError | None = None) -> None:
        """Send what is pending, then close; streams still open are lost."""
        if not self.closed:
            self.flush()
            if self.established and not self.closed:
                self.session.close()
                self.flush()
            if not self.closed:
                self.close()
                self._down(error)

    def drop(self, error: MeshError | OSError | None = None) -> None:
        """Close without a word to the peer but a reset; streams still open are lost."""
        if not self.closed:
            self.abort()
            self._down(error)

    def unsent(self) -> bool:
        """Closing now would lose octets of streams that have ended: they wait here, or in the kernel, which lets go of
        them when the peer says anything after that."""
        return self.established and not self.closed and (self.backlog_size > 0 or unconfirmed(self.sock) > 0)

    def await_relief(self, end: Waiting) -> None:
        """Call `on_room` when the tunnel is no longer congested."""
        self._relief.append(end)

    def end_if_revoked(self) -> None:
        """What is revoked has changed."""
        if self.established and not self.closed:
            try:
                self.plane.revocations.refuse_revoked(self.session.chain)
            except MeshError as error:
                self._count_revoked(error)
                self.drop(error)

    def _count_revoked(self, error: MeshError) -> None:
        if isinstance(error, PeerRevoked):
            self.plane.recorder.counters.count(revoked_by("source" if self.core.client else "destination"))

    # --- octets out

    def _encrypt(self, data: memoryview) -> None:
        """Encrypted octets leave OpenSSL at once: what its buffer held in the busiest turn it keeps for good. What the
        kernel does not take waits in pages that are given back, and stops those who write."""
        if self.closed:
            return
        try:
            self.session.write(data)
        except ssl.SSLError:
            # It broke on what the peer sent last; whoever read that is about to close.
            return
        error = self.put(self.session.pending())
        if error is not None:
            # Whoever is writing must not find the tunnel gone under it.
            self.poller.at_end(partial(self.fail, error))

    def _flush_soon(self) -> None:
        if not self._dirty:
            self._dirty = True
            self.plane.flush_soon(self)

    def flush(self) -> None:
        """End of the turn: encrypt and send."""
        self._dirty = False
        if self.computing:
            return
        self.gathered.seal()
        data = self.session.pending()
        if data:
            self.push(data)
        if self.backlog_size > _UNREAD_LIMIT:
            self.plane.recorder.counters.count(violated("unread_output"))
            self.fail(None)

    # --- octets in

    def on_readable(self) -> None:
        net, reach = self._net, self._reach
        try:
            size = self._recv_into(net if reach == Buffers.SIZE else net[:reach])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.fail(error)
            return
        if not size:
            self.fail(None)
            return
        self.reads += 1
        self.session.feed(net[:size])
        if self.established:
            self._decrypt()
            return
        try:
            if self._records.complete(net[:size]):
                self._shake()
        except ProtocolError as error:
            self.drop(error)

    def _shake(self) -> None:
        """Go on with the handshake; what the peer says meanwhile waits in the kernel."""
        self.stop_reading()
        self.computing = True
        self.delayed -= self.plane.clock()
        self.plane.handshakes.go_on(self.pod, self)

    def shaken(self, outcome: bool | Exception) -> None:
        """A step of the handshake has been computed."""
        self.computing = False
        self.delayed += self.plane.clock()
        if self.closed:
            self.session.release()
            return
        try:
            up = self._settle(outcome)
            self.start_reading()
            if up:
                self._decrypt()
        except Exception as error:
            self._crash(error)

    def _settle(self, outcome: bool | Exception) -> bool:
        """What has come of a step of the handshake; True when the tunnel is up."""
        try:
            if isinstance(outcome, Exception):
                raise outcome
            self.flush()
            if not outcome or self.closed:
                return False
            self.plane.revocations.refuse_revoked(self.session.chain)
            self.verify(self.session.certificate())
            self.established = True
            self.core.start()
            self.on_established()
        except MeshError as error:
            self._count_revoked(error)
            self.flush()
            if not self.closed:
                # Else there was nobody to say it to any more, and that it is over has been told.
                self.close()
                self._down(error)
            return False
        return not self.closed

    def _decrypt(self) -> None:
        """Hand on what can be read, in pieces as large as they are cheap; when it takes long it is the turn of others.

        A peer whose octets cost much (frames of one octet, requests by the hundred, messages of TLS that bring nothing)
        must not stand in the way of all.
        """
        plain, have = self._plain, 0
        # Of a large piece the time on the processor counts: the machine may have been busy with others meanwhile. That
        # clock is a system call, so it is asked only after a piece took long by the other.
        clock = thread_time if self._slow else self.plane.clock
        receive, read_into, drained = self.core.receive, self.session.read_into, self.session.drained
        begin = before = clock()
        try:
            while (size := read_into(plain[have : self._reach])) > 0:
                have += size
                if drained():
                    break
                if have >= self._reach or have > _FEED_AT:
                    receive(plain[:have])
                    if self.closed:
                        return
                    now = clock()
                    self._weigh(have, now - before)
                    have, before = 0, now
                    if now - begin > SLICE_S or self.core.unfinished:
                        self._give_way()
                        return
        except ProtocolError as error:
            if have:
                receive(plain[:have])
            self._finish()
            self.plane.recorder.counters.count("tls_errors")
            self.shut(error)
            return
        if have:
            receive(plain[:have])
        self._weigh(have, clock() - before)
        if self.closed:
            return
        if size < 0:
            self._finish()
            self.fail(None)
        elif self.core.unfinished and self.core.broken is None:
            self._give_way()
        elif self.core.broken is not None:
            self.shut(ProtocolError("HTTP/2", "", self.core.broken.text))

    def _weigh(self, size: int, spent: float) -> None:
        """A piece of `size` octets took so many seconds: the next may be larger, or has to be smaller."""
        if spent > SLICE_S:
            if self._slow or self._reach <= _LARGE_REACH:
                self._reach = max(_SMALLEST_REACH, self._reach >> 1)
            self._slow = self._reach > _LARGE_REACH
            return
        self._slow = False
        if size >= self._reach >> 3 and spent < SLICE_S / 2 and self._reach < Buffers.SIZE:
            self._reach <<= 1

    def _finish(self) -> None:
        """Nothing more will come: what is left is gone through at once, but for requests, which nobody would answer."""
        self.core.going_away = True
        while self.core.unfinished and self.core.broken is None and not self.closed:
            self.core.receive(_NOTHING)

    def _give_way(self) -> None:
        """There is more to do, after others had their turn."""
        self.stop_reading()
        self.plane.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        try:
            if self.core.unfinished:
                self.core.receive(_NOTHING)
            if self.closed:
                return
            if self.core.unfinished and self.core.broken is None:
                self._give_way()
                return
            self.start_reading()
            self._decrypt()
        except Exception as error:
            self._crash(error)

    # --- events

    def on_violation(self, violation: Violation) -> None:
        if violation.reason:
            self.plane.recorder.counters.count(violated(violation.reason))
        if self.core.broken is not None:
            # An orderly end to a peer that is gone would stay with the kernel for minutes.
            end = self.drop if violation.silent else self.shut
            self.poller.at_end(partial(end, ProtocolError("HTTP/2", "", violation.text)))

    def on_relieved(self) -> None:
        waiting, self._relief = self._relief, []
        for end in waiting:
            end.on_room()

    def on_lost(self, error: OSError | None) -> None:
        self._down(error)

    def _down(self, error: MeshError | OSError | None) -> None:
        self.plane.tunnels.discard(self)
        self._relief.clear()
        self.death = error
        self.core.lost(LOST)
        self.on_down(error)
        if not self.computing or self.plane.handshakes.take_back(self.pod, self):
            self.session.release()
