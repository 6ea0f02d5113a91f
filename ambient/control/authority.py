"""The authority that signs now: loaded from where it is kept, made when there is none, followed, changed in steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from cryptography import x509

from ambient.ca.changeover import Changeover
from ambient.ca.roots import ROOT_LIFETIME, Authority, load_authority, make_root
from ambient.ca.rotation import KEY, ROOTS, Pace, advance
from ambient.control.ca_store import CaStore, Kept, Outrun
from ambient.errors import InvalidInput, Unavailable

_log = logging.getLogger("ambient.control.authority")


class SigningAuthority:
    """`load` first, then `follow` now and then. `authority` is what signs and is trusted at this moment."""

    def __init__(
        self,
        store: CaStore,
        *,
        trust_domain: str,
        create: bool,
        pace: Pace,
        staged: bool = False,
        lifetime: timedelta = ROOT_LIFETIME,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`create`: make a root when there is none. `staged`: an authority that somebody replaces at once is taken over
        in steps (where we ourselves tell everybody which roots to trust)."""
        self._store = store
        self._trust_domain = trust_domain
        self._create = create
        self._pace = pace
        self._staged = staged
        self._lifetime = lifetime
        self._clock = clock
        self._seen = ""
        self._changeover: Changeover | None = None
        self._own: Mapping[str, bytes] = {}
        self._told: tuple[object, str] = (None, "")
        self._complaint = ""

    @property
    def authority(self) -> Authority:
        if self._changeover is None:
            raise Unavailable("certificate authority", self._store.where, "is not loaded yet")
        return self._changeover.effective(self._clock())

    @property
    def retires(self) -> datetime | None:
        """Until when roots are trusted that are of an authority which was replaced; None when there are none."""
        changeover = self._changeover
        if changeover is None or changeover.retires is None or changeover.retires <= self._clock():
            return None
        return changeover.retires

    async def load(self) -> None:
        """Load it the first time, or make it. Raises InvalidInput or Unavailable."""
        kept = await self._store.read()
        if not kept.files and self._create:
            kept = await self._made()
        self._changeover = Changeover(load_authority(kept.files, self._clock()))
        self._seen = kept.version
        self._own = {} if kept.plugged else kept.files
        self._told = self._now()

    def inherit(self, roots: str, retires: datetime) -> None:
        """What was trusted before we started is trusted until then, where it can be read."""
        try:
            x509.load_pem_x509_certificates(roots.encode())
        except ValueError as error:
            _log.error("the roots that were trusted before cannot be read, and are trusted no more: %s", error)
            return
        if self._changeover is not None and retires > self._clock():
            self._changeover = self._changeover.inherited(roots, retires)
            self._told = self._now()

    async def follow(self) -> bool:
        """Take up what has changed and do what it is time for; True when something else signs or is trusted since the
        last call. What is invalid or cannot be read is logged, and leaves what is in force."""
        try:
            kept = await self._store.read()
            if not kept.files and self._own and self._create:
                kept = await self._put_back()
            kept = await self._advanced(kept)
            if kept.version != self._seen:
                self._seen = kept.version
                self._take(load_authority(kept.files, self._clock()))
                self._own = {} if kept.plugged else kept.files
        except Outrun:
            # Another replica did it; the next look finds what it did.
            pass
        except (InvalidInput, Unavailable) as error:
            if str(error) != self._complaint:
                _log.error("the certificate authority cannot be used as it is kept, what we have goes on: %s", error)
            self._complaint = str(error)
        else:
            self._complaint = ""
        told, self._told = self._told, self._now()
        return told != self._told

    async def _advanced(self, kept: Kept) -> Kept:
        if kept.plugged or KEY not in kept.files:
            return kept
        step = advance(
            kept.files,
            kept.request,
            self._clock(),
            self._pace,
            organization=self._trust_domain,
            lifetime=self._lifetime,
        )
        if step is None:
            return kept
        await self._store.write(step.files, kept.version)
        _log.warning("%s: %s", self._store.where, step.said)
        return await self._store.read()

    async def _put_back(self) -> Kept:
        """Somebody has deleted our root: a restart would make another, which nobody trusts yet."""
        await self._store.write(self._own, "")
        _log.warning("%s was gone and has been put back", self._store.where)
        return await self._store.read()

    async def _made(self) -> Kept:
        certificate, key = make_root(self._clock(), self._trust_domain, self._lifetime)
        try:
            await self._store.write({ROOTS: certificate.encode(), KEY: key.encode()}, "")
            _log.warning("made a new self-signed root in %s", self._store.where)
        except Outrun:
            _log.info("another replica made the root in %s", self._store.where)
        return await self._store.read()

    def _take(self, wanted: Authority) -> None:
        before = self._changeover
        if before is None or not self._staged:
            self._changeover = Changeover(wanted)
            return
        now = self._clock()
        self._changeover = before.replaced(wanted, now, self._pace)
        if self._changeover.signs_from is not None:
            _log.warning(
                "the authority was replaced at once: the new one signs from %s, the old one is trusted until %s",
                self._changeover.signs_from.isoformat(timespec="seconds"),
                self._changeover.retires.isoformat(timespec="seconds") if self._changeover.retires else "",
            )

    def _now(self) -> tuple[object, str]:
        authority = self.authority
        return authority.certificate, authority.roots
