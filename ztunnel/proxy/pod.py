"""One served pod: its sockets, identity, policy, live connections and tunnels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from ambient.errors import ProtocolError
from ambient.model.address import Endpoint, IpAddress, parse_ip
from ambient.model.identity import parse_identity
from ambient.model.outcome import PeerLabels
from ztunnel.hbone.headers import request_prefix
from ztunnel.ipc.messages import PodPolicy, PodUp
from ztunnel.proxy.backlog import CountedChunks
from ztunnel.proxy.budget import HANDSHAKES, OPEN, WAITING, Share
from ztunnel.proxy.connections import LiveConnections
from ztunnel.proxy.plane import Plane
from ztunnel.proxy.pool import TunnelPool
from ztunnel.proxy.shaking import Shaking
from ztunnel.proxy.sockets import PodSockets, ports_in_turn
from ztunnel.telemetry.record import Failure

if TYPE_CHECKING:
    from ztunnel.proxy.inbound import InboundTunnel

_PREFIX_LIMIT: Final = 4_096
BEHIND: Final = 16
"""With more steps of handshakes than this waiting, some ten milliseconds of arithmetic, no more tunnels are begun."""
_BEHIND_S: Final = 0.005


class Cuttable(Protocol):
    """A connection that can be ended from outside."""

    def cut(self, failure: Failure) -> None:
        """End it now, both sides."""


class Pod:
    """State of one pod in this worker. `sockets` is owned."""

    __slots__ = (
        "_known_waiters",
        "_prefixes",
        "_shaking",
        "addresses",
        "baggage",
        "buffers",
        "chunks",
        "closing",
        "identity",
        "live",
        "outbound",
        "plane",
        "policy",
        "pool",
        "ports",
        "share",
        "sockets",
        "trust_domain",
        "tunnels",
        "uid",
        "up",
    )

    def __init__(self, plane: Plane, up: PodUp, sockets: PodSockets) -> None:
        name = f"{up.namespace}/{up.name}"
        self.plane = plane
        self.up = up
        self.uid = up.uid
        self.identity = up.identity
        self.trust_domain = parse_identity(up.identity).trust_domain
        self.sockets = sockets
        self.ports = ports_in_turn()
        """Where the next connections to the application speak from."""
        self.share = Share(
            *plane.ledgers.place(up.row),
            plane.settings.budgets,
            plane.clock,
            plane.recorder.counters.count,
            lambda text: plane.recorder.log.log("warn", "budget", text, [("pod", name)]),
        )
        """What the pod takes of the node, and may take."""
        self.chunks = CountedChunks(
            plane.buffers.chunks, partial(self.share.add, WAITING), self.share.crowded, lambda: plane.clock()
        )
        self.buffers = plane.buffers.counting(self.chunks)
        opened = partial(self.share.add, OPEN)
        self.live = LiveConnections(up.policy, plane.crashed, plane.indexes, plane.decisions.tell, opened)
        self.pool = TunnelPool(plane, self)
        self.outbound: dict[Cuttable, None] = {}
        """Outbound connections of the pod."""
        self.tunnels: set[InboundTunnel] = set()
        self._shaking: Shaking[InboundTunnel] = Shaking()
        self.closing = False
        self._known_waiters: list[Callable[[], None]] = []
        self._take(up.policy)

    def _take(self, policy: PodPolicy) -> None:
        self.policy = policy
        self._prefixes: dict[str, bytes] = {}
        self.baggage = policy.baggage.encode("utf-8", "replace")
        self.addresses: frozenset[IpAddress] = frozenset(parse_ip(text) for text in policy.addresses)

    def request_prefix(self, authority: str) -> bytes:
        """The constant part of a CONNECT request to `authority`."""
        prefix = self._prefixes.get(authority)
        if prefix is None:
            if len(self._prefixes) >= _PREFIX_LIMIT:
                self._prefixes.clear()
            prefix = self._prefixes[authority] = request_prefix(authority.encode("ascii"), self.baggage)
        return prefix

    @property
    def labels(self) -> PeerLabels:
        return self.policy.own

    @property
    def connections(self) -> int:
        """Connections of this pod that are still open."""
        return len(self.live) + len(self.outbound)

    def goes_out(self, connection: Cuttable) -> None:
        """A connection of the pod begins."""
        self.outbound[connection] = None
        self.share.add(OPEN, 1)
        self.plane.outgoing.add(1)

    def came_back(self, connection: Cuttable) -> None:
        """It is over."""
        if self.outbound.pop(connection, self) is None:
            self.share.add(OPEN, -1)
            self.plane.outgoing.add(-1)

    def shakes(self, tunnel: InboundTunnel) -> None:
        """The TLS handshake of a tunnel to the pod begins."""
        self._shaking.add(tunnel)
        self.share.add(HANDSHAKES, 1)

    def shook(self, tunnel: InboundTunnel) -> None:
        """It is complete, or never will be."""
        if self._shaking.remove(tunnel):
            self.share.add(HANDSHAKES, -1)

    def pause_before_next(self) -> float:
        """As the share says. Where what waits is in the way a connection that is stuck has to go: else whoever reads
        nothing of some hundred answers would keep everybody out."""
        stuck = self.chunks.stuck() if self.share.crowded() else None
        if stuck is not None:
            self.plane.recorder.counters.count("stuck_connections_ended")
            stuck.give_way()
        return self.share.pause_before_next()

    def pause_before_tunnel(self) -> float:
        """As the share says, and a moment while we are behind with handshakes. Where they are in the way one that
        stalls has to go: else whoever begins some and says no more would keep every honest peer out."""
        if self.share.shaking_too_many():
            stalled = self._shaking.stalled(self.plane.clock())
            if stalled is not None:
                stalled.drop(ProtocolError("TLS handshake", "", "stalled, and others wait"))
        pause = self.share.pause_before_more_handshakes() or self.pause_before_next()
        # What cannot be begun soon waits in the kernel, where it costs nothing and another worker may take it.
        return pause or (_BEHIND_S if self.plane.handshakes.waiting(self) > BEHIND else 0.0)

    def update(self, policy: PodPolicy) -> int:
        """New policy state: judge the live connections again; returns how many were cut."""
        self._take(policy)
        cut = self.live.replace(policy)
        if policy.known:
            waiting, self._known_waiters = self._known_waiters, []
            for callback in waiting:
                callback()
        return cut

    def when_known(self, callback: Callable[[], None]) -> None:
        """Call back when discovery has told about this pod (see PodPolicy.known), at once if it has."""
        if self.policy.known:
            callback()
        else:
            self._known_waiters.append(callback)

    def stop_waiting(self, callback: Callable[[], None]) -> None:
        if callback in self._known_waiters:
            self._known_waiters.remove(callback)

    def is_own(self, endpoint: Endpoint) -> bool:
        """The address is one of the pod's own or loopback; also one that discovery does not know of (yet)."""
        ip = endpoint.ip
        return ip.is_loopback or ip in self.addresses or self.sockets.is_local(ip)
