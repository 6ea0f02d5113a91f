"""One of several replicas at a time: a Lease (coordination.k8s.io) that is held, renewed, lost and handed over.

Whoever holds it writes; the others only wait. Clocks are never compared between machines: a lease of somebody else is
over when we ourselves have seen it unchanged for as long as it says. Our own is over well before anybody else may take
it, by our clock, whether or not the server can be reached.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ambient.errors import MeshError
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import Conflict, NotThere
from ambient.kube.resource import Resource

LEASES: Final = Resource("coordination.k8s.io/v1", "leases")
RELEASE_S: Final = 2.0

_log = logging.getLogger("ambient.kube.api.lease")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Which lease, and who we are. Times in seconds: others may take it `duration_s` after our last word; we stop
    `deadline_s` after it (which must be less), and renew every `period_s`."""

    namespace: str
    name: str
    identity: str
    duration_s: int = 15
    deadline_s: float = 10.0
    period_s: float = 2.0


class Election:
    """`held` is true while we may write. `changed` is called when it became true or false."""

    def __init__(
        self,
        client: ApiClient,
        seat: Seat,
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._seat = seat
        self._changed = changed
        self._clock = clock
        self._renewed_at: float | None = None
        self._theirs: object = None
        self._theirs_since = 0.0
        self._was_held = False
        self._trouble = ""
        self.holder = ""

    @property
    def held(self) -> bool:
        return self._renewed_at is not None and self._clock() - self._renewed_at < self._seat.deadline_s

    async def run(self) -> None:
        """Until cancelled; a lease that is held then is given up so that another replica can take it at once."""
        try:
            while True:
                await self.round()
                await asyncio.sleep(self._seat.period_s)
        finally:
            if self.held:
                await self._release()

    async def round(self) -> None:
        """Take or renew the lease, or see that it is another's."""
        try:
            async with asyncio.timeout(self._seat.deadline_s - self._seat.period_s):
                await self._try()
            self._trouble = ""
        except (MeshError, TimeoutError) as error:
            # A conflict means that somebody else wrote: they may hold it now.
            if isinstance(error, Conflict):
                self._renewed_at = None
            elif str(error) != self._trouble:
                self._trouble = str(error)
                _log.warning("lease %s/%s: %s", self._seat.namespace, self._seat.name, error or "no answer in time")
        self._tell()

    def _tell(self) -> None:
        if self.held != self._was_held:
            self._was_held = self.held
            _log.info("%s the lease %s/%s", "holding" if self.held else "lost", self._seat.namespace, self._seat.name)
            self._changed()

    async def _try(self) -> None:
        seat = self._seat
        asked_at = self._clock()
        try:
            lease = await self._client.get(LEASES, seat.name, seat.namespace)
        except NotThere:
            metadata = {"name": seat.name, "namespace": seat.namespace}
            await self._client.create(LEASES, self._lease(metadata, 0, None), seat.namespace)
            self._renewed_at, self.holder = asked_at, seat.identity
            return
        spec = lease.get("spec") or {}
        self.holder = str(spec.get("holderIdentity") or "")
        ours = self.holder == seat.identity
        if not ours:
            self._renewed_at = None
        if not ours and self.holder and not self._over(lease, spec):
            return
        moves = int(spec.get("leaseTransitions") or 0) + (not ours)
        wanted = self._lease(lease["metadata"], moves, spec.get("acquireTime") if ours else None)
        await self._client.replace(LEASES, seat.name, wanted, seat.namespace)
        self._renewed_at, self.holder = asked_at, seat.identity

    def _over(self, lease: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
        """Whether another's lease has been silent for as long as it lasts, as seen from here."""
        seen = (self.holder, spec.get("renewTime"), lease["metadata"].get("resourceVersion"))
        now = self._clock()
        if seen != self._theirs:
            self._theirs, self._theirs_since = seen, now
        return now - self._theirs_since > float(spec.get("leaseDurationSeconds") or self._seat.duration_s)

    def _lease(self, metadata: Mapping[str, Any], moves: int, acquired: str | None) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "apiVersion": LEASES.group_version,
            "kind": "Lease",
            "metadata": {name: metadata[name] for name in ("name", "namespace", "resourceVersion") if name in metadata},
            "spec": {
                "holderIdentity": self._seat.identity,
                "leaseDurationSeconds": self._seat.duration_s,
                "acquireTime": acquired or now,
                "renewTime": now,
                "leaseTransitions": moves,
            },
        }

    async def _release(self) -> None:
        """Best effort: who does not get the word waits for the lease to run out."""
        self._renewed_at = None
        try:
            async with asyncio.timeout(RELEASE_S):
                lease = await self._client.get(LEASES, self._seat.name, self._seat.namespace)
                spec = lease.get("spec") or {}
                if spec.get("holderIdentity") == self._seat.identity:
                    spec |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                    await self._client.replace(LEASES, self._seat.name, lease, self._seat.namespace)
                    _log.info("gave up the lease %s/%s", self._seat.namespace, self._seat.name)
        except (MeshError, TimeoutError) as error:
            _log.warning("lease %s/%s not given up: %s", self._seat.namespace, self._seat.name, error)
