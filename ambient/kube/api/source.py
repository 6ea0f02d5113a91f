"""The objects of an API server as `Records`: every kind is followed by itself, and what they give is shown as one.

Nothing is shown before every kind was listed once (a kind that is not installed has no objects). After that the last
known state stays whatever becomes of the server; a relist shows differences only.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from ambient.errors import InvalidInput
from ambient.kube.api.client import ApiClient
from ambient.kube.api.follow import Follower
from ambient.kube.api.lease import Election, Seat
from ambient.kube.api.listwatch import Change, ListWatch, Pace
from ambient.kube.api.named import PACE, NamedObjects
from ambient.kube.api.sink import OWN_TYPES, ApiSink
from ambient.kube.api.slim import slim
from ambient.kube.objects import Record, Records, RefusedObject, parse_object, resources
from ambient.kube.resource import Name, Resource

_PATIENCE_S: Final = 15.0
"""So long nothing at all is shown at the start before what is referred to was read: who has just begun must not take
away what proxies have."""
_PATIENCE_THEN_S: Final = 1.0
"""And so long news wait later. It is seldom needed: an answer takes milliseconds."""
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_log = logging.getLogger("ambient.kube.api")


@dataclass(frozen=True, slots=True)
class Beside:
    """What is to be read by its name; `concerned`: the kinds of objects that this rests on."""

    wanted: Callable[[Records], Collection[Name]]
    concerned: Collection[str]


class ApiSource:
    """Objects of `kinds`; with `node` only the pods on it. `run` beside `changes`. `followers` by kind, for metrics.

    `seat`: the lease that whoever writes has to hold; None: nobody else writes what we write. `beside`: what is to be
    read by its name, because of what was read.
    """

    def __init__(
        self,
        client: ApiClient,
        *,
        kinds: Collection[str],
        node: str = "",
        seat: Seat | None = None,
        pace: Pace | None = None,
        chance: Callable[[], float] = random.random,
        beside: Beside | None = None,
    ) -> None:
        self.client = client
        self.election = Election(client, seat, self._resume) if seat is not None else None
        self.sink = ApiSink(client, self._look, self._place, self.leading, generation=self._generation)
        self._records: dict[str, Record] = {}
        self._refused: dict[str, RefusedObject] = {}
        self._changed: set[str] = set()
        self._last = Records()
        self._revision = 0
        self._wake = asyncio.Event()
        self._ready = False
        self._said: dict[str, str] = {}
        self._failing: set[str] = set()
        self.followers = {
            kind: Follower(
                client,
                ListWatch(
                    kind,
                    resources(kind),
                    fields=f"spec.nodeName={node}" if node and kind == "Pod" else "",
                    pace=pace or Pace(),
                    random=chance,
                ),
                self._take,
                self._settled,
            )
            for kind in kinds
        }
        self._beside = beside
        self._until: float | None = None
        self.named = NamedObjects(
            client, self._take, self._changed.add, self._settled, pace=pace or PACE, chance=chance
        )

    async def run(self) -> None:
        """Follow every kind until cancelled; then the connections are closed."""
        try:
            async with asyncio.TaskGroup() as group:
                for follower in self.followers.values():
                    group.create_task(follower.run())
                group.create_task(self.sink.run())
                group.create_task(self.named.run())
                if self.election is not None:
                    group.create_task(self.election.run())
        finally:
            await self.client.close()

    async def changes(self) -> AsyncIterator[Records]:
        """See `ObjectSource`. The revision counts what was yielded; it means nothing to anybody else."""
        first = True
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._all_listed() or (not self._changed and not first):
                continue
            self._look_beside(first=first)
            if not self.named.known:
                continue
            self._until = None
            changed = frozenset(self._changed)
            self._changed.clear()
            self._revision += 1
            self._last = Records(
                self._revision,
                MappingProxyType(self._records.copy()),
                tuple(self._refused.values()),
                changed=None if first else changed,
            ).since(self._last)
            yield self._last
            first = False

    def _look_beside(self, *, first: bool) -> None:
        """What refers to something is shown together with that, unless this takes too long."""
        beside = self._beside
        if beside is not None and (first or any(key.partition("/")[0] in beside.concerned for key in self._changed)):
            now = asyncio.get_running_loop().time()
            self._until = self._until or now + (_PATIENCE_S if first else _PATIENCE_THEN_S)
            now_known = MappingProxyType(self._records)
            shown = Records(self._revision, now_known, changed=frozenset(self._changed)).since(self._last)
            wanted = beside.wanted(shown)
            self.named.want(wanted, max(self._until - now, 0.0))

    def waiting(self) -> str:
        """Why there are no records yet: the kinds that were not listed, and what the server says to that."""
        if self._all_listed():
            return ""
        missing = [f.core for f in self.followers.values() if not f.core.synced]
        return "waiting for " + "; ".join(f"{core.kind} ({core.trouble or 'being listed'})" for core in missing)

    def status(self, writer: str) -> ApiSink:
        """The sink; field managers tell writers apart, not names."""
        return self.sink

    def leading(self) -> bool:
        return self.election is None or self.election.held

    def _resume(self) -> None:
        if self.leading():
            self.sink.resume()

    def _look(self, key: str) -> Record | None:
        return self._records.get(key)

    def _generation(self, key: str) -> int:
        """Of the newest version of an object, good or refused; 0 when it has none."""
        refused = self._refused.get(key)
        if refused is not None:
            metadata = refused.raw.get("metadata")
            found = metadata.get("generation") if isinstance(metadata, Mapping) else None
            return found if isinstance(found, int) else 0
        record = self._records.get(key)
        return record.generation if record is not None else 0

    def _place(self, kind: str) -> Resource:
        follower = self.followers.get(kind)
        return follower.core.place if follower is not None else resources(kind)[0]

    @property
    def stale_s(self) -> float:
        """Seconds since the least recently heard watch was heard."""
        return time.monotonic() - min((f.alive_at for f in self.followers.values()), default=time.monotonic())

    def _all_listed(self) -> bool:
        self._ready = self._ready or all(follower.core.synced for follower in self.followers.values())
        return self._ready

    def _settled(self) -> None:
        for kind, follower in self.followers.items():
            core = follower.core
            now = f"{kind} is not installed: waiting for it" if core.absent else core.trouble
            # Said when it begins and when it ends, not at every attempt, and not of what the next attempt mends.
            if now != self._said.get(kind, "") and now != "not asked yet" and (core.failures != 1 or not now):
                self._tell(kind, now, core)
        if self._changed or not self._revision:
            self._wake.set()

    def _tell(self, kind: str, now: str, core: ListWatch) -> None:
        """Of kinds that cannot be read for the same time, the first and the last are named."""
        before, self._said[kind] = self._said.get(kind, ""), now
        if core.absent:
            _log.info("%s", now)
        elif core.forbidden:
            _log.error("%s cannot be read, give our service account list and watch: %s", kind, now)
        elif now and not before:
            _log.log(
                logging.DEBUG if self._failing else logging.WARNING,
                "%s cannot be read now, what is known stays: %s", kind, now,
            )  # fmt: skip
        if now and not core.absent:
            self._failing.add(kind)
        elif kind in self._failing:
            self._failing.discard(kind)
            for follower in self.followers.values():
                follower.hurry()
            if not self._failing:
                _log.info("%s is read again, and everything with it", kind)

    def _take(self, change: Change) -> None:
        """Turn one change into a record; what is refused leaves the last good version of the same object."""
        key, known = change.key, self._records.get(change.key)
        if change.content is None:
            refused = self._refused.pop(key, None)
            if self._records.pop(key, None) is not None or refused is not None:
                self._changed.add(key)
            return
        kind, namespace, name = key.split("/", 2)
        content = change.content
        try:
            content = slim(kind, content)
            record = parse_object(content, "the Kubernetes API", observed=True)
            if record.key != key:
                raise InvalidInput("the Kubernetes API", key, f"the object calls itself {record.key}")
        except Exception as found:
            error = found if isinstance(found, InvalidInput) else _unreadable(key, found)
            if known is not None and known.uid != _uid(content):
                # Another object of that name: the good version was one of an object that is gone.
                del self._records[key]
                known = None
            where = "" if namespace == "_" else namespace
            self._refused[key] = RefusedObject(kind, where, name, error, content, stands=known is not None)
            self._changed.add(key)
            _log.warning("refused, %s: %s", "its last good version stays" if known else "it has no effect", error)
            return
        was_refused = self._refused.pop(key, None) is not None
        if was_refused or record != known:
            record = self._records[key] = replace(record, raw=_NOTHING)
            if was_refused or known is None or _without_own(record) != _without_own(known):
                self._changed.add(key)


def _unreadable(key: str, found: Exception) -> InvalidInput:
    """One object ends neither us nor the news of all others, whatever its parser makes of it."""
    _log.error("the parser of %s is broken", key, exc_info=found)
    return InvalidInput("the Kubernetes API", key, f"it cannot be read: {type(found).__name__}")


def _without_own(record: Record) -> Record:
    """What we ourselves wrote is no news."""
    return replace(record, conditions=tuple(c for c in record.conditions if c.type not in OWN_TYPES))


def _uid(content: Mapping[str, Any]) -> str:
    metadata = content.get("metadata")
    return str(metadata.get("uid", "")) if isinstance(metadata, Mapping) else ""
