"""The HBONE connections of one pod to other proxies, shared by its outbound connections.

Connections are shared only between callers that expect the same peer at the same address. Per destination they are
made one at a time; whoever comes meanwhile waits for it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ambient.errors import MeshError, ProtocolError, Refused, Unavailable
from ambient.model.address import Endpoint
from ambient.model.outcome import Hop
from ztunnel.addresses import address_of
from ztunnel.proxy.dial import Dials
from ztunnel.proxy.tunnel import Tunnel
from ztunnel.telemetry.record import Failure, Flag
from ztunnel.tls.contexts import Credentials
from ztunnel.tls.revocation import PeerRevoked
from ztunnel.tls.verify import verify_server

if TYPE_CHECKING:
    import asyncio

    from ztunnel.proxy.plane import Plane
    from ztunnel.proxy.pod import Pod

CONNECT_TIMEOUT_S: Final = 10.0
CERTIFICATE_TIMEOUT_S: Final = 5.0
SURPLUS_S: Final = 5.0
"""How long a connection without streams is kept beside others to the same peer."""


class TunnelKey(NamedTuple):
    """What a connection may be shared by. The source address is the pod's, there is one pool per pod."""

    ip: str
    port: int
    expected: tuple[str, ...]
    serial: int
    """Serial of our credentials: after a renewal new connections present the new certificate."""

    @property
    def hop(self) -> Endpoint:
        return Endpoint(address_of(self.ip), self.port)


class Applicant(Protocol):
    """Who wants a stream on a connection."""

    closed: bool

    def tunnel_ready(self, tunnel: ClientTunnel, *, reused: bool) -> None:
        """Open a stream on it now."""

    def tunnel_failed(self, failure: Failure) -> None:
        """There is none to be had."""


class ClientTunnel(Tunnel):
    """Our side of a connection that the pool made."""

    __slots__ = ("_expected", "_making", "last_used", "pooled")

    def __init__(
        self, pod: Pod, sock: socket.socket, credentials: Credentials, expected: tuple[str, ...], making: _Making
    ) -> None:
        super().__init__(pod, sock, credentials.client, server=False)
        self._expected = expected
        self._making: _Making | None = making
        self.last_used = pod.plane.clock()
        self.pooled = True

    def usable(self) -> bool:
        return self.pooled and not self.closed and self.core.capacity() > 0

    def verify(self, certificate: dict[str, object] | None) -> None:
        verify_server(certificate, self._expected)

    def on_established(self) -> None:
        making, self._making = self._making, None
        if making is not None:
            making.established(self)

    def on_down(self, error: MeshError | OSError | None) -> None:
        self.pooled = False
        making, self._making = self._making, None
        if making is not None:
            making.broke(error)

    def tick(self, now: float) -> None:
        super().tick(now)
        idle = not self.core.streams and self._making is None
        unused = now - self.last_used > self.plane.settings.tuning.pool_idle_s
        if idle and (not self.pooled or self.core.going_away or unused):
            self.pooled = False
            if not self.unsent():
                self.shut()


class _Making:
    """One connection being made, and who waits for it."""

    __slots__ = ("_dials", "_key", "_pool", "_tunnel", "waiting")

    def __init__(self, pool: TunnelPool, key: TunnelKey) -> None:
        self._pool = pool
        self._key = key
        self.waiting: list[Applicant] = []
        self._dials: Dials | None = None
        self._tunnel: ClientTunnel | None = None

    def start(self, credentials: Credentials) -> None:
        pool, key = self._pool, self._key
        version = key.hop.ip.version

        def connected(outcome: socket.socket | OSError) -> None:
            if isinstance(outcome, OSError):
                self.failed(_connect_failure(outcome, key.hop))
                return
            self._tunnel = ClientTunnel(pool.pod, outcome, credentials, key.expected, self)
            self._tunnel.begin()

        try:
            self._dials = Dials(
                pool.plane.poller, lambda: pool.pod.sockets.tcp(version), key.hop, CONNECT_TIMEOUT_S, connected
            )
        except MeshError as error:
            self.failed(Failure(Flag.CONNECT, str(error)))

    def established(self, tunnel: ClientTunnel) -> None:
        self._pool.made(self._key, tunnel, self.waiting)

    def broke(self, error: MeshError | OSError | None) -> None:
        if isinstance(error, PeerRevoked):
            self.failed(error.failure)
        elif isinstance(error, Refused | ProtocolError):
            flag = Flag.H2_HANDSHAKE_FAILURE if error.what == "HTTP/2" else Flag.TLS_FAILURE
            self.failed(Failure(flag, str(error)))
        else:
            self.failed(
                Failure(Flag.TLS_FAILURE, f"connection closed during the TLS handshake: {error or 'end of file'}")
            )

    def failed(self, failure: Failure) -> None:
        self._pool.not_made(self._key, failure, self.waiting)

    def cancel(self, failure: Failure) -> None:
        if self._dials is not None:
            self._dials.cancel()
        self.failed(failure)
        if self._tunnel is not None:
            self._tunnel.shut()


def _connect_failure(error: OSError, hop: Endpoint) -> Failure:
    if isinstance(error, TimeoutError):
        hint = "connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008"
        return Failure(Flag.NETWORK_POLICY if hop.port == 15008 else Flag.CONNECT, f"{hint}: {hop}")
    return Failure(Flag.CONNECT, f"connect to {hop}: {error.strerror or error}")


class TunnelPool:
    """All of one pod's connections to other proxies."""

    __slots__ = ("_making", "_ready", "plane", "pod")

    def __init__(self, plane: Plane, pod: Pod) -> None:
        self.plane = plane
        self.pod = pod
        self._ready: dict[TunnelKey, list[ClientTunnel]] = {}
        self._making: dict[TunnelKey, _Making] = {}

    def acquire(self, hop: Hop, applicant: Applicant, *, fresh: bool = False) -> None:
        """Give `applicant` a connection to `hop`: one that is there (unless `fresh`), or a new one."""
        credentials = self.plane.wallet.get(self.pod.identity)
        if credentials is None:
            _AwaitCredentials(self, hop, applicant)
            return
        key = TunnelKey(hop.ip, hop.port, hop.expected, credentials.serial)
        if not fresh:
            for tunnel in self._ready.get(key, ()):
                if tunnel.usable():
                    tunnel.last_used = self.plane.clock()
                    applicant.tunnel_ready(tunnel, reused=True)
                    return
        self._wait(key, credentials, [applicant])

    def _wait(self, key: TunnelKey, credentials: Credentials, applicants: list[Applicant]) -> None:
        making = self._making.get(key)
        if making is not None:
            making.waiting.extend(applicants)
            return
        making = self._making[key] = _Making(self, key)
        making.waiting.extend(applicants)
        making.start(credentials)

    def made(self, key: TunnelKey, tunnel: ClientTunnel, waiting: list[Applicant]) -> None:
        """A connection came up: keep it and serve who waited, as far as it has streams."""
        self._making.pop(key, None)
        tunnels = [kept for kept in self._ready.get(key, ()) if not kept.closed and not kept.core.going_away]
        self._ready[key] = [*tunnels, tunnel]
        for at, applicant in enumerate(waiting):
            if not tunnel.usable():
                credentials = self.plane.wallet.get(self.pod.identity)
                if credentials is not None:
                    self._wait(key, credentials, waiting[at:])
                else:
                    self.not_made(key, Failure(Flag.IDENTITY_ERROR, "the certificate has expired"), waiting[at:])
                return
            if not applicant.closed:
                applicant.tunnel_ready(tunnel, reused=False)

    def not_made(self, key: TunnelKey, failure: Failure, waiting: list[Applicant]) -> None:
        """It could not be made: everybody who waited fails."""
        self._making.pop(key, None)
        for applicant in waiting:
            if not applicant.closed:
                applicant.tunnel_failed(failure)

    def tick(self) -> None:
        """Once a second: forget what is gone or belongs to credentials that were renewed."""
        credentials = self.plane.wallet.get(self.pod.identity)
        for key, tunnels in list(self._ready.items()):
            stale = credentials is not None and credentials.serial != key.serial
            left = [] if stale else [tunnel for tunnel in tunnels if tunnel.pooled and not tunnel.closed]
            if stale:
                for tunnel in tunnels:
                    tunnel.pooled = False
            if left:
                self._ready[key] = left
                self._spare(left)
            else:
                del self._ready[key]

    def _spare(self, tunnels: list[ClientTunnel]) -> None:
        """What a crowd needed and left behind: one idle connection to a peer is enough."""
        now = self.plane.clock()
        idle = [tunnel for tunnel in tunnels if not tunnel.core.streams and now - tunnel.last_used > SURPLUS_S]
        for tunnel in idle[1:] if len(idle) == len(tunnels) else idle:
            tunnel.pooled = False

    def close(self, failure: Failure) -> None:
        """The pod is gone: close every connection now."""
        for making in list(self._making.values()):
            making.cancel(failure)
        for tunnels in self._ready.values():
            for tunnel in tunnels:
                tunnel.shut()
        self._ready.clear()


class _AwaitCredentials:
    """An applicant that waits, for a limited time, for the pod's certificate."""

    __slots__ = ("_applicant", "_hop", "_pool", "_timer")

    def __init__(self, pool: TunnelPool, hop: Hop, applicant: Applicant) -> None:
        self._pool = pool
        self._hop = hop
        self._applicant = applicant
        self._timer: asyncio.TimerHandle | None = pool.plane.loop.call_later(CERTIFICATE_TIMEOUT_S, self._expired)
        pool.plane.wallet.wait(pool.pod.identity, self._got)

    def _got(self, outcome: Credentials | Unavailable) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._applicant.closed:
            return
        if isinstance(outcome, Unavailable):
            self._applicant.tunnel_failed(Failure(Flag.IDENTITY_ERROR, str(outcome)))
        else:
            self._pool.acquire(self._hop, self._applicant)

    def _expired(self) -> None:
        self._timer = None
        wallet, identity = self._pool.plane.wallet, self._pool.pod.identity
        wallet.leave(identity, self._got)
        self._got(Unavailable("certificate", identity, "not received in time"))
