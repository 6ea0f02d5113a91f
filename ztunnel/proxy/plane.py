"""What every connection of this worker shares: loop, clock, buffers, records, credentials, answers of the director."""

from __future__ import annotations

import random
import time
import traceback
from typing import TYPE_CHECKING, Final, Protocol

from ambient.model.address import IpAddress
from ambient.model.decide import SharedIndexes
from ambient.model.outcome import PeerLabels, Plan
from ztunnel.hbone.limits import Limits
from ztunnel.ipc.authorities import AuthorityAnswer, AuthorityAsk
from ztunnel.ipc.messages import PeerAsk, RouteAsk, Settings
from ztunnel.proxy.asks import AskCache
from ztunnel.proxy.balance import Balance
from ztunnel.proxy.budget import Ledgers
from ztunnel.proxy.socket_end import Buffers
from ztunnel.telemetry.decisions import Decisions
from ztunnel.telemetry.recorder import Recorder
from ztunnel.tls.contexts import Wallet
from ztunnel.tls.handshakes import Handshakes
from ztunnel.tls.revocation import Revocations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ztunnel.proxy.loop import Loop
    from ztunnel.proxy.pod import Pod

RouteKey = tuple[str, IpAddress, int]
AUTHORITIES: Final = 4_096
"""Answers kept about authorities, and questions open at a time: any peer may invent some."""


class HostLookup(Protocol):
    """Finds the addresses of a host name (ztunnel.dns.hosts)."""

    def find(self, pod: Pod, name: str, done: Callable[[tuple[IpAddress, ...]], None]) -> None:
        """Call back once, maybe at once; with none when there are none."""


class Carrier(Protocol):
    """A tunnel, over TCP or inside another."""

    def tick(self, now: float) -> None:
        """Once a second."""

    def flush(self) -> None:
        """Send what was encrypted."""

    def unsent(self) -> bool:
        """Closing now would lose octets of streams that have ended."""

    def end_if_revoked(self) -> None:
        """What is revoked has changed."""

    def fail(self, error: OSError | None) -> None:
        """It is of no more use."""


class Plane:
    """`send` puts a message to the director and says whether there is one. `settings` is replaced when it tells;
    `hosts` is set by the worker before the first connection."""

    hosts: HostLookup

    def __init__(
        self,
        loop: Loop,
        recorder: Recorder,
        settings: Settings,
        send: Callable[[object], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        balance: Balance | None = None,
        outgoing: Balance | None = None,
    ) -> None:
        self.loop = loop
        self.recorder = recorder
        self.settings = settings
        self.clock = clock
        self.random = random.random
        self.random_bits = random.getrandbits
        self.buffers = Buffers()
        self.ledgers = Ledgers()
        self.poller = loop.poller
        self.balance = balance or Balance()
        """Of the tunnels that other proxies made."""
        self.outgoing = outgoing or Balance()
        """Of the connections that applications made."""
        self.indexes = SharedIndexes()
        self.decisions = Decisions(recorder, lambda: self.settings.policy_info_log)
        self.handshakes = Handshakes(loop)
        self.wallet = Wallet(wall)
        self.revocations = Revocations()
        self.tunnels: set[Carrier] = set()
        self.draining = False
        self.routes: AskCache[RouteKey, Plan] = AskCache(lambda key: send(RouteAsk(uid=key[0], ip=key[1], port=key[2])))
        self.authorities: AskCache[tuple[str, str], AuthorityAnswer] = AskCache(
            lambda key: send(AuthorityAsk(uid=key[0], authority=key[1])), limit=AUTHORITIES
        )
        self.peers: AskCache[IpAddress, PeerLabels] = AskCache(lambda ip: send(PeerAsk(ip=ip)))
        self._dirty: list[Carrier] = []
        self._tuned = settings.tuning
        self._limits = (self._tuned.limits(client=False), self._tuned.limits(client=True))

    def limits(self, *, client: bool) -> Limits:
        """Of a new connection in that role."""
        tuning = self.settings.tuning
        if tuning is not self._tuned:
            self._tuned = tuning
            self._limits = (tuning.limits(client=False), tuning.limits(client=True))
        return self._limits[client]

    def flush_soon(self, tunnel: Carrier) -> None:
        """Have the tunnel send what it encrypted, once, after the other events of this turn."""
        if not self._dirty:
            self.poller.at_end(self._flush_all)
        self._dirty.append(tunnel)

    def _flush_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        for tunnel in dirty:
            try:
                tunnel.flush()
            except Exception as error:
                self.crashed("flush", error)
                tunnel.fail(None)

    def tick(self) -> None:
        """Once a second: keepalive and time limits of every tunnel."""
        now = self.clock()
        for tunnel in list(self.tunnels):
            try:
                tunnel.tick(now)
            except Exception as error:
                self.crashed("tick", error)
                tunnel.fail(None)

    def revoke(self, keys: Iterable[bytes], *, unknown: bool = False) -> None:
        """These certificates (`ztunnel.tls.revocation`) and no others are revoked: who lives on one of them ends.
        `unknown`: nobody can say which are, and every tunnel ends."""
        self.revocations.replace(keys, unknown=unknown)
        for tunnel in list(self.tunnels):
            tunnel.end_if_revoked()

    def crashed(self, where: str, error: BaseException) -> None:
        """A bug ended one connection: say so, and go on."""
        self.recorder.counters.count("worker_handler_crashes")
        trace = "".join(traceback.format_exception(error)[-3:])
        self.recorder.log.log("error", "worker", f"handler crashed: {where}: {error!r}", [("trace", trace)])
