"""The certificates of every identity on this node: asks for them as the schedule says, keeps them, tells who listens.

Keys exist only in sealed memfds. A valid certificate is never given up because its renewal failed; that one is not
renewed is said well before it runs out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ambient.errors import InvalidInput, MeshError
from ambient.waking import woken
from ambient.xds import key_request
from ambient.xds.renewal import Priority, Schedule
from ztunnel.director.custody import Secret
from ztunnel.director.expiry import Alarm, Expiries, Life, Watch, gauges, spoken
from ztunnel.director.memfd import content, sealed
from ztunnel.tls.contexts import load_credentials

Sign = Callable[[str, str], Awaitable[list[str]]]
"""(identity, CSR as PEM) -> leaf, intermediates, root bundle; raises MeshError."""

CLOCK_LOOK_S: Final = 5.0
"""How often to look at the clock: it jumps when a machine was asleep or somebody sets it, and timers do not."""

_log = logging.getLogger("certificates")


class Listener(Protocol):
    """Who is told about certificates."""

    def certificate_ready(self, identity: str, secret: Secret) -> None: ...
    def certificate_failed(self, identity: str, why: str) -> None: ...
    def certificate_gone(self, identity: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Shown:
    """One identity for the config dump; the key is not in it."""

    identity: str
    state: str
    chain_pem: str = ""
    roots_pem: str = ""


class Certificates:
    """`taken_back`: secrets out of custody; each is used when its identity is wanted and it is still good."""

    def __init__(
        self,
        sign: Sign,
        listener: Listener,
        *,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._sign = sign
        self._listener = listener
        self._clock = clock
        self._schedule = Schedule(draw)
        self._secrets: dict[str, Secret] = {}
        self._first_to_end: dict[str, tuple[float, str]] = {}
        """Of the chain of each of `_secrets`."""
        self._spare: dict[str, Secret] = {}
        self._failures: dict[str, str] = {}
        self._watch = Watch()
        self._all_known = False
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, taken_back: Mapping[str, Secret]) -> None:
        """Secrets that an earlier process had; owned by us from here on. They may come late: who is still without a
        certificate takes them, and what nobody can want any more is let go."""
        for identity, secret in taken_back.items():
            if identity in self._schedule.identities:
                if self._schedule.valid(identity, self._clock()) or not self._reuse(identity, secret):
                    os.close(secret.fd)
            elif self._all_known:
                os.close(secret.fd)
                self._listener.certificate_gone(identity)
            else:
                earlier = self._spare.pop(identity, None)
                if earlier is not None:
                    os.close(earlier.fd)
                self._spare[identity] = secret
        self._changed.set()

    def want(self, identity: str, priority: Priority = Priority.WARMUP) -> None:
        """A pod of this node has this identity."""
        fresh = identity not in self._schedule.identities
        self._schedule.want(identity, self._clock(), priority)
        spare = self._spare.pop(identity, None)
        if spare is not None and not (fresh and self._reuse(identity, spare)):
            os.close(spare.fd)
        self._changed.set()

    def keep_only(self, identities: Iterable[str]) -> None:
        """Forget every other identity; those that nobody on the node has any more."""
        for identity in self._schedule.identities - set(identities):
            self._schedule.forget(identity)
            self._failures.pop(identity, None)
            secret = self._secrets.pop(identity, None)
            if secret is not None:
                del self._first_to_end[identity]
                self._listener.certificate_gone(identity)
                os.close(secret.fd)

    def drop_spares(self) -> None:
        """Every pod of the node is known now: what nobody wanted of the earlier process' secrets goes."""
        self._all_known = True
        for identity, secret in self._spare.items():
            os.close(secret.fd)
            self._listener.certificate_gone(identity)
        self._spare.clear()

    def held(self) -> list[tuple[str, Secret]]:
        """Every certificate that has not run out, and what came out of custody and may still be wanted."""
        now = self._clock()
        both = [*self._secrets.items(), *self._spare.items()]
        return [(identity, secret) for identity, secret in both if secret.not_after > now]

    def current(self) -> list[tuple[str, Secret]]:
        """Every certificate in use that has not run out."""
        now = self._clock()
        return [(identity, secret) for identity, secret in self._secrets.items() if secret.not_after > now]

    def authorities(self) -> list[x509.Certificate]:
        """Every authority that certificates in use rest on: roots and intermediates."""
        found: dict[bytes, x509.Certificate] = {}
        for _, secret in self.current():
            chain = key_request.public_part(content(secret.fd)).decode()
            for one in key_request.authorities(chain, secret.roots):
                found[one.fingerprint(hashes.SHA256())] = one
        return list(found.values())

    @property
    def lacking(self) -> bool:
        """Some identity that is wanted has no valid certificate."""
        now = self._clock()
        return not all(self._schedule.valid(identity, now) for identity in self._schedule.identities)

    def failures(self) -> Mapping[str, str]:
        """Identities without a valid certificate whose last request failed, with the reason."""
        now = self._clock()
        return {identity: why for identity, why in self._failures.items() if not self._schedule.valid(identity, now)}

    def show(self) -> list[Shown]:
        """For the config dump."""
        now = self._clock()
        rows = []
        for identity in sorted(self._schedule.identities):
            secret = self._secrets.get(identity)
            chain = key_request.public_part(content(secret.fd)).decode() if secret else ""
            rows.append(Shown(identity, self._schedule.state(identity, now), chain, secret.roots if secret else ""))
        return rows

    def hurry(self) -> None:
        """The control plane answers again: try failed requests now."""
        self._schedule.hurry(self._clock())
        self._changed.set()

    def renew_all(self) -> None:
        """A root has changed: get certificates, and with them the new roots, for everybody soon."""
        self._schedule.renew_all(self._clock())
        self._changed.set()

    def gauges(self) -> dict[str, float]:
        """Metrics of how long certificates still last."""
        return gauges(self._expiries(), self._clock())

    def _expiries(self) -> Expiries:
        """A certificate is of use until the first of its chain ends. It is renewed as it says itself: a new one may
        come with the same chain."""
        return {
            identity: Life(begin, end).until(*self._first_to_end[identity])
            for identity, (begin, end) in self._schedule.expiries().items()
        }

    def _look(self) -> None:
        for notice in self._watch.look(self._expiries(), self._clock()):
            why = self._failures.get(notice.identity, "" if notice.by else "no answer yet")
            level = logging.WARNING if notice.level is Alarm.LATE else logging.ERROR
            _log.log(level, "%s%s", notice, f" ({why})" if why else "")

    async def run(self) -> None:
        """Ask for what is due, for ever."""
        try:
            while True:
                self._changed.clear()
                self._look()
                step = self._schedule.step(self._clock())
                for identity in step.fetch:
                    task = asyncio.ensure_future(self._fetch(identity))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                wait = None if step.wake is None else min(CLOCK_LOOK_S, max(0.0, step.wake - self._clock()))
                await woken(self._changed, wait)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Give up the memory of every key."""
        for secret in (*self._secrets.values(), *self._spare.values()):
            os.close(secret.fd)
        self._secrets.clear()
        self._spare.clear()

    def _reuse(self, identity: str, spare: Secret) -> bool:
        now = self._clock()
        try:
            begin, end = key_request.validity(content(spare.fd), identity)
        except MeshError as error:
            _log.warning("%s", error)
            return False
        if end <= now:
            return False
        self._schedule.fetched(identity, begin, end, now)
        self._install(identity, spare)
        return True

    async def _fetch(self, identity: str) -> None:
        try:
            request = key_request.KeyRequest(identity)
            issued = request.accept(await self._sign(identity, request.csr_pem), self._clock())
            fd = _loadable(issued)
        except MeshError as error:
            self._fail(identity, str(error))
        except Exception as error:
            # A bug, but it must not leave this identity waiting for an answer for ever.
            self._fail(identity, f"internal error: {error!r}")
            raise
        else:
            now = self._clock()
            # Authorities date back for clocks that are behind; half of a short life must not be over at its beginning.
            if self._schedule.fetched(identity, max(issued.not_before, now), issued.not_after, now):
                self._install(identity, Secret(fd, issued.roots, issued.not_after))
                _log.info("certificate for %s until %s", identity, key_request.rfc3339(issued.not_after))
            else:
                os.close(fd)
        finally:
            self._changed.set()

    def _fail(self, identity: str, why: str) -> None:
        self._failures[identity] = why
        _, end = self._schedule.expiries().get(identity, (0.0, 0.0))
        left = end - self._clock()
        _log.warning("certificate for %s: %s%s", identity, why, f" (valid for {spoken(left)})" if left > 0 else "")
        if self._schedule.failed(identity, why, self._clock()):
            self._listener.certificate_failed(identity, why)

    def _install(self, identity: str, secret: Secret) -> None:
        earlier = self._secrets.get(identity)
        self._secrets[identity] = secret
        self._first_to_end[identity] = key_request.first_to_end(key_request.public_part(content(secret.fd)).decode())
        self._failures.pop(identity, None)
        self._listener.certificate_ready(identity, secret)
        if earlier is not None:
            os.close(earlier.fd)


def _loadable(issued: key_request.Issued) -> int:
    """A descriptor with it. Raises InvalidInput for what no worker could use (an intermediate with a short key, say):
    the certificate before it must not be given up for that."""
    fd = sealed("ambient-certificate", issued.secret)
    try:
        load_credentials(issued.identity, fd, issued.roots, issued.not_after, 0)
    except InvalidInput:
        os.close(fd)
        raise
    return fd
