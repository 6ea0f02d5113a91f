"""A pod being served: its listening sockets joined to the paths that connections take."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import Final

from ambient.errors import InvalidInput
from ambient.model.identity import parse_identity
from ztunnel.dns.server import DnsServer
from ztunnel.dns.upstream import Resolvers
from ztunnel.ipc.messages import PodUp
from ztunnel.proxy.accept import PER_WAKEUP, Acceptor
from ztunnel.proxy.budget import HANDSHAKES, TAKEN, TUNNELS
from ztunnel.proxy.inbound import InboundTunnel
from ztunnel.proxy.outbound import Outbound
from ztunnel.proxy.passthrough import PlainInbound
from ztunnel.proxy.plane import Plane
from ztunnel.proxy.pod import Pod
from ztunnel.proxy.socket_end import abort_socket
from ztunnel.proxy.sockets import PodSockets, endpoint_of, keep_alive
from ztunnel.telemetry.record import Failure, Flag
from ztunnel.tls.contexts import Credentials

DRAINED: Final = Failure(Flag.NONE, "connection closed due to connection drain")
CERTIFICATE_WAIT_S: Final = 5.0
_TCP_LISTENERS: Final = 3

MakeSockets = Callable[[int], PodSockets]


class ServedPod:
    """Owns the descriptors of one PodUp: netns, outbound, plaintext, hbone, then the dns sockets."""

    def __init__(
        self, plane: Plane, up: PodUp, fds: Sequence[int], resolvers: Resolvers, make_sockets: MakeSockets = PodSockets
    ) -> None:
        if len(fds) < 1 + _TCP_LISTENERS:
            raise InvalidInput("pod without its sockets", up.uid, f"{len(fds)} descriptors")
        parse_identity(up.identity)
        self.plane = plane
        self.up = up
        self.netns_inode = os.fstat(fds[0]).st_ino
        self._netns_fd = os.dup(fds[0])
        sockets = make_sockets(fds[0])
        sockets.tuning = plane.settings.tuning
        self.pod = Pod(plane, up, sockets)
        listeners = [socket.socket(fileno=fd) for fd in fds[1:]]
        takers = (self._take_outbound, self._take_plain, self._take_hbone)
        aheads = (plane.outgoing.ahead, None, plane.balance.ahead)
        at_once = (PER_WAKEUP, PER_WAKEUP, 1)
        self._listeners = listeners
        for listener in listeners[:_TCP_LISTENERS]:
            keep_alive(listener, sockets.tuning)  # whatever is accepted inherits it
        count = plane.recorder.counters.count
        pauses = (self.pod.pause_before_next, self.pod.pause_before_next, self.pod.pause_before_tunnel)
        self._acceptors = [
            Acceptor(plane.poller, sock, taker, count, plane.crashed, pause, ahead, most)
            for sock, taker, pause, ahead, most in zip(
                listeners[:_TCP_LISTENERS], takers, pauses, aheads, at_once, strict=True
            )
        ]
        self._resolvers = resolvers
        self._dns = [DnsServer(plane, self.pod, sock, resolvers) for sock in listeners[_TCP_LISTENERS:]]

    @property
    def listening_fds(self) -> tuple[int, ...]:
        """Descriptors in the order of PodUp, for a restarted director. They stay ours."""
        return (self._netns_fd, *(sock.fileno() for sock in self._listeners))

    # --- accepting

    def _admit(self, sock: socket.socket) -> bool:
        """One more connection is begun, unless the pod has as many as it may: then the client hears so at once."""
        share = self.pod.share
        share.add(TAKEN, 1)
        if share.full():
            abort_socket(sock)
            return False
        return True

    def _take_outbound(self, sock: socket.socket, peer: tuple[object, ...]) -> None:
        if not self._admit(sock):
            return
        Outbound(self.pod, sock, endpoint_of(peer), self.pod.sockets.dialled(sock)).begin()

    def _take_plain(self, sock: socket.socket, peer: tuple[object, ...]) -> None:
        if not self._admit(sock):
            return
        PlainInbound(self.pod, sock, endpoint_of(peer), self.pod.sockets.dialled(sock)).begin()

    def _take_hbone(self, sock: socket.socket, peer: tuple[object, ...]) -> None:
        self.pod.share.add(TAKEN, 1)
        if self.pod.share.full(TUNNELS):
            abort_socket(sock)
            return
        source, local = endpoint_of(peer), endpoint_of(sock.getsockname())
        credentials = self.plane.wallet.get(self.pod.identity)
        if credentials is not None:
            InboundTunnel(self.pod, sock, source, local, credentials).begin()
        else:
            _AwaitCertificate(self, sock, lambda found: InboundTunnel(self.pod, sock, source, local, found).begin())

    # --- ending

    @property
    def busy(self) -> bool:
        """Something is open, or a peer may still send a request on a tunnel because it has not read our GOAWAY."""
        return bool(self.pod.connections) or any(not tunnel.core.going_away for tunnel in self.pod.tunnels)

    def stop_accepting(self, *, take_queue: bool = True) -> None:
        """Take what is queued and no new connections; our handles of the listening sockets stay open."""
        for acceptor in self._acceptors:
            if take_queue:
                acceptor.finish()
            else:
                acceptor.pause()
        self._acceptors.clear()
        for server in self._dns:
            server.close()
        self._dns.clear()

    def drain(self, *, take_queue: bool = True) -> None:
        """No new connections and no new streams; what is open goes on. Without `take_queue` somebody else takes what
        waits to be accepted."""
        self.stop_accepting(take_queue=take_queue)
        self.pod.closing = True
        for tunnel in list(self.pod.tunnels):
            if tunnel.established:
                tunnel.core.drain()

    def tick(self) -> None:
        """Once a second."""
        self.pod.pool.tick()
        self.pod.sockets.tick()

    def close(self) -> None:
        """Cut what is left and release every descriptor."""
        self.pod.closing = True
        self.stop_accepting()
        self.pod.live.cut_all(DRAINED)
        for connection in list(self.pod.outbound):
            try:
                connection.cut(DRAINED)
            except Exception as error:
                # The rest must go all the same.
                self.plane.crashed("close", error)
        self.pod.pool.close(DRAINED)
        self._resolvers.drop(self.pod.uid)
        for tunnel in list(self.pod.tunnels):
            tunnel.shut()
        for sock in self._listeners:
            sock.close()
        self._listeners.clear()
        self.pod.sockets.close()
        self.pod.share.close()
        if self._netns_fd >= 0:
            os.close(self._netns_fd)
            self._netns_fd = -1


class _AwaitCertificate:
    """An accepted tunnel whose pod has no certificate yet waits a limited time for it. It counts as one whose handshake
    is under way."""

    __slots__ = ("_go", "_served", "_sock", "_timer")

    def __init__(self, served: ServedPod, sock: socket.socket, go: Callable[[Credentials], None]) -> None:
        self._served = served
        self._sock = sock
        self._go = go
        plane = served.plane
        self._timer = plane.loop.call_later(CERTIFICATE_WAIT_S, self._expired)
        served.pod.share.add(HANDSHAKES, 1)
        plane.wallet.wait(served.pod.identity, self._got)

    def _got(self, outcome: Credentials | Exception) -> None:
        self._timer.cancel()
        self._served.pod.share.add(HANDSHAKES, -1)
        if isinstance(outcome, Credentials) and not self._served.pod.closing:
            self._go(outcome)
            return
        self._served.plane.recorder.counters.count("inbound_without_certificate")
        self._served.plane.recorder.log.log("warn", "proxy::inbound", f"no certificate: {outcome}")
        self._sock.close()

    def _expired(self) -> None:
        self._served.plane.wallet.leave(self._served.pod.identity, self._got)
        self._got(TimeoutError("not received in time"))
