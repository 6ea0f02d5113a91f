"""Addresses of endpoints that discovery knows by host name only, found with the node's resolvers.

One question of each family per name, from inside the asking pod's network namespace; answers are kept as long as they
say (within limits), and longer when the resolvers have nothing better to say. They are kept for that pod alone: who
rules a namespace can answer there in the resolvers' name, and must not lead the others astray.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from ambient.errors import InvalidInput
from ambient.model.address import IpAddress
from ambient.model.dns import AAAA, A, read_answer, read_query, write_query
from ztunnel.dns.measure import looked_up
from ztunnel.dns.upstream import Resolvers
from ztunnel.proxy.plane import Plane
from ztunnel.proxy.pod import Pod

DEADLINE_S: Final = 4.0
SHORTEST_S: Final = 1.0
LONGEST_S: Final = 300.0
MOST: Final = 4_096
"""Names kept, as many as Istio keeps; a name counts once for each pod that asked."""

Done = Callable[[tuple[IpAddress, ...]], None]


@dataclass(frozen=True, slots=True)
class _Known:
    addresses: tuple[IpAddress, ...]
    until: float


class Hosts:
    """One per worker."""

    def __init__(self, plane: Plane, resolvers: Resolvers) -> None:
        self._plane = plane
        self._resolvers = resolvers
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        """By uid of the pod and name."""
        self._under_way: dict[tuple[str, str], _Search] = {}

    def find(self, pod: Pod, name: str, done: Done) -> None:
        """Call back once with the name's addresses, maybe at once; with none when it has none or nobody answers."""
        key = (pod.uid, name)
        known = self._known.get(key)
        if known is not None and known.until > self._plane.clock():
            done(known.addresses)
            return
        search = self._under_way.get(key)
        if search is not None:
            search.waiting.append(done)
            return
        looked_up(self._plane.recorder.counters, pod.labels, pod.identity, name)
        search = self._under_way[key] = _Search(partial(self._over, key))
        search.waiting.append(done)
        search.begin(self._plane, self._resolvers, pod, name)

    def _over(self, key: tuple[str, str], addresses: tuple[IpAddress, ...], ttl: float) -> None:
        search = self._under_way.pop(key)
        if not addresses:
            self._plane.recorder.counters.count("host_lookup_failures")
            old = self._known.get(key)
            addresses = old.addresses if old is not None else ()
        kept = min(max(ttl, SHORTEST_S), LONGEST_S)
        self._known[key] = _Known(addresses, self._plane.clock() + kept)
        self._known.move_to_end(key)
        if len(self._known) > MOST:
            self._known.popitem(last=False)
        for done in search.waiting:
            done(addresses)


class _Search:
    """Both families of one name. `over` is called once, at the deadline at the latest."""

    __slots__ = ("_found", "_open", "_over", "_timer", "_ttl", "waiting")

    def __init__(self, over: Callable[[tuple[IpAddress, ...], float], None]) -> None:
        self.waiting: list[Done] = []
        self._over: Callable[[tuple[IpAddress, ...], float], None] | None = over
        self._found: list[IpAddress] = []
        self._ttl = LONGEST_S
        self._open = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, plane: Plane, resolvers: Resolvers, pod: Pod, name: str) -> None:
        """Ask; may be over before this returns."""
        self._timer = plane.loop.call_later(DEADLINE_S, self._finish)
        kinds = (A, AAAA) if plane.settings.ipv6 else (A,)
        self._open = len(kinds)
        try:
            questions = [write_query(name, kind) for kind in kinds]
        except InvalidInput:
            self._finish()
            return
        for data in questions:
            self._ask(resolvers, pod, data, stream=False)

    def _ask(self, resolvers: Resolvers, pod: Pod, data: bytes, *, stream: bool) -> None:
        def done(answer: bytes | None) -> None:
            try:
                found = None if answer is None else read_answer(answer)
            except InvalidInput:
                found = None
            if found is not None and found.truncated and not stream:
                self._ask(resolvers, pod, data, stream=True)
                return
            if found is not None and found.addresses:
                self._found += found.addresses
                self._ttl = min(self._ttl, found.ttl)
            self._open -= 1
            if not self._open:
                self._finish()

        resolvers.forward(pod, read_query(data), data, None, done, stream=stream)

    def _finish(self) -> None:
        over, self._over = self._over, None
        if self._timer is not None:
            self._timer.cancel()
        if over is not None:
            over(tuple(self._found), self._ttl if self._found else 0.0)
