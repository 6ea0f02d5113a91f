"""The waypoint's own certificate: asked for as its schedule says, and handed to Envoy as discovery secrets.

The key is in memory only, here and in Envoy; it passes between them over a Unix socket that nobody else may open.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ambient.errors import MeshError
from ambient.waking import woken
from ambient.waypoint.tls import OWN_SECRET, ROOT_SECRET
from ambient.waypoint.typed import SECRET_TYPE
from ambient.waypoint.wire import encode
from ambient.xds.catalogue import Catalogue
from ambient.xds.key_request import Issued, KeyRequest, public_part, rfc3339
from ambient.xds.renewal import Priority, Schedule

CLOCK_LOOK_S: Final = 5.0
"""How often to look at the clock: it jumps when a machine was asleep, and timers do not."""

_log = logging.getLogger("waypoint.identity")


class OwnIdentity:
    """`run` until cancelled. `secrets` has nothing before there is a certificate: Envoy then waits, closed."""

    def __init__(
        self,
        identity: str,
        sign: Callable[[str, str], Awaitable[list[str]]],
        *,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._identity = identity
        self._sign = sign
        self._clock = clock
        self._schedule = Schedule(draw)
        self._news = asyncio.Event()
        self._issued = 0
        self.secrets = Catalogue(types=(SECRET_TYPE,))
        self.listeners: list[Callable[[], None]] = []
        """Called when `secrets` changed."""

    async def run(self) -> None:
        self._schedule.want(self._identity, self._clock(), Priority.REAL_TIME)
        while True:
            step = self._schedule.step(self._clock())
            for identity in step.fetch:
                await self._fetch(identity)
            if not step.fetch:
                await self._rest(step.wake)

    def renew(self) -> None:
        """The roots have changed: a new certificate is due at once."""
        self._schedule.renew_all(self._clock())
        self._schedule.hurry(self._clock())
        self._news.set()

    async def _rest(self, wake: float | None) -> None:
        left = CLOCK_LOOK_S if wake is None else min(max(wake - self._clock(), 0.0), CLOCK_LOOK_S)
        if await woken(self._news, left):
            self._news.clear()

    async def _fetch(self, identity: str) -> None:
        request = KeyRequest(identity)
        try:
            chain = await self._sign(identity, request.csr_pem)
            issued = request.accept(chain, self._clock())
        except MeshError as error:
            none = self._schedule.failed(identity, str(error), self._clock())
            _log.warning("no %scertificate for %s: %s", "" if none else "new ", identity, error)
            return
        self._schedule.fetched(identity, issued.not_before, issued.not_after, self._clock())
        self._publish(issued)
        _log.info("certificate for %s until %s", identity, rfc3339(issued.not_after))

    def _publish(self, issued: Issued) -> None:
        chain = public_part(issued.secret)
        key = issued.secret[: len(issued.secret) - len(chain)]
        own = {
            "certificate_chain": {"inline_string": chain.decode()},
            "private_key": {"inline_string": key.decode()},
        }
        secrets = {
            OWN_SECRET: {"tls_certificate": own},
            ROOT_SECRET: {"validation_context": {"trusted_ca": {"inline_string": issued.roots}}},
        }
        self._issued += 1
        self.secrets.update(
            (encode(SECRET_TYPE, name, {"name": name, **one}) for name, one in secrets.items()), self._issued
        )
        for listener in self.listeners:
            listener()
