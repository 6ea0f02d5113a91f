"""Whether waypoints have proxies that serve: put together from what every replica of the control plane sees.

A proxy is connected to one replica, and the one that writes is another as often as not: it asks the others
(`/debug/waypoints`). Who is on the way from one replica to the next is waited for before it counts as gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import aiohttp
import msgspec

from ambient.model.address import Endpoint

TICK_S: Final = 1.0
ASK_S: Final = 1.0
GONE_S: Final = 5.0
"""A proxy whose replica has gone is with another one by then."""
BEGIN_S: Final = 15.0
"""For so long after our start nobody is missed who was there before."""
_LARGEST: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Sight:
    """Of one waypoint, over all replicas. `connected`: proxies; `serving`: those among them that have taken a whole
    configuration; `refused`: what they do not take, by name."""

    connected: int = 0
    serving: int = 0
    refused: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __add__(self, other: Sight) -> Sight:
        together = {**self.refused, **other.refused}
        return Sight(self.connected + other.connected, self.serving + other.serving, MappingProxyType(together))


NOBODY: Final = Sight()


class Proxies:
    """`own()`: what this replica sees, by "namespace/name". `say(waypoint)`: it is seen otherwise than before."""

    def __init__(
        self,
        own: Callable[[], Mapping[str, Sight]],
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._say = say
        self._clock = clock
        self._began = clock()
        self._others: Mapping[str, Sight] = {}
        self._served_at: dict[str, float] = {}
        self._told: dict[str, tuple[bool | None, Sight]] = {}
        self.peers: Callable[[], Sequence[Endpoint]] = lambda: ()
        self.leading: Callable[[], bool] = lambda: True

    def sight(self, waypoint: str) -> Sight:
        return self._own().get(waypoint, NOBODY) + self._others.get(waypoint, NOBODY)

    def serves(self, waypoint: str) -> bool | None:
        """Whether a proxy of it is there and has a configuration; None: that is not known yet."""
        now = self._clock()
        if self.sight(waypoint).serving:
            self._served_at[waypoint] = now
            return True
        served_at = self._served_at.get(waypoint)
        if served_at is None:
            return None if now - self._began < BEGIN_S else False
        return now - served_at < GONE_S

    def page(self) -> dict[str, Any]:
        """What other replicas are told."""
        return {
            name: {"connected": one.connected, "serving": one.serving, "refused": dict(one.refused)}
            for name, one in self._own().items()
        }

    def hear(self, answers: Sequence[Mapping[str, Sight] | None]) -> None:
        """What the other replicas say, None of one that does not answer: whoever was with it counts no longer."""
        others: dict[str, Sight] = {}
        for answer in answers:
            for name, one in (answer or {}).items():
                others[name] = others.get(name, NOBODY) + one
        self._others = others
        told, self._told = self._told, {}
        for name in self._own().keys() | self._served_at.keys():
            state = self._told[name] = (self.serves(name), self.sight(name))
            if told.get(name) != state:
                self._say(name)
        for name in self._served_at.keys() - self._own().keys():
            del self._served_at[name]

    async def run(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_S)) as session:
            while True:
                if self.leading():
                    # Replicas see the same Gateways: where there is none, nobody has to be asked.
                    asked = self.peers() if self._own() else ()
                    self.hear(await asyncio.gather(*(_ask(session, peer) for peer in asked)))
                await asyncio.sleep(TICK_S)


class _One(msgspec.Struct):
    connected: int
    serving: int
    refused: dict[str, str]


async def _ask(session: aiohttp.ClientSession, peer: Endpoint) -> Mapping[str, Sight] | None:
    try:
        async with session.get(f"http://{peer}/debug/waypoints") as answer:
            page = msgspec.json.decode(await answer.content.read(_LARGEST), type=dict[str, _One])
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return {name: Sight(one.connected, one.serving, MappingProxyType(one.refused)) for name, one in page.items()}
