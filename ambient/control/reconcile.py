"""From objects to everything that is served: each change of the folder is derived and pushed as one step.

Changes that come while a step runs are taken together by the next one, so load batches by itself and a single change
waits for nobody.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from types import MappingProxyType
from typing import Any

from ambient.control.certificates import Certificates
from ambient.control.derive import Derived, Value
from ambient.control.derive_waypoint import BOUND
from ambient.control.discovery import Discovery
from ambient.control.enforcement import Enforcement
from ambient.control.metrics import ControlMetrics
from ambient.control.refusals import with_refusals
from ambient.control.tenancies import Tenancies
from ambient.control.waypoints import Waypoints
from ambient.kube.objects import Condition, Record, Records
from ambient.kube.source import ObjectSource, StatusSink
from ambient.kube.status_values import ListenerStatus
from ambient.xds.catalogue import Catalogue
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, TYPES
from ambient.xds.pace import WithoutCollection, between_others

WRITER = "control"

_log = logging.getLogger("ambient.control.reconcile")


class Reconciler:
    """Runs the steps. `observed`: the objects revision that was served last, -1 before the first. `failure`: why the
    newest one is not served, "" when it is. `listeners` get each snapshot before anything is derived from it.
    `enforcement`: where it is known which nodes have taken a policy."""

    def __init__(
        self,
        derive: Callable[[Records], Derived],
        catalogue: Catalogue,
        discovery: Discovery,
        certificates: Certificates,
        status: StatusSink,
        metrics: ControlMetrics,
        waypoints: Waypoints,
    ) -> None:
        self._waypoints = waypoints
        self._derive = derive
        self._catalogue = catalogue
        self._discovery = discovery
        self._certificates = certificates
        self._status = status
        self._metrics = metrics
        self._tenancies = Tenancies()
        self._seen: object = None
        self._said: dict[str, tuple[str, int, tuple[Condition, ...]]] = {}
        self.observed = -1
        self.failure = ""
        self.writers: dict[str, int] = {}
        self.listeners: list[Callable[[Records], None]] = []
        self.enforcement: Enforcement | None = None
        self._served = Records()
        self._on_gateways: frozenset[str] = frozenset()
        self._with_ancestors: frozenset[str] = frozenset()
        self._listed: dict[str, tuple[ListenerStatus, ...]] = {}
        self._wanted: Mapping[str, Sequence[Condition]] = MappingProxyType({})

    async def run(self, source: ObjectSource) -> None:
        """Until cancelled."""
        async for records in source.changes():
            await self.step(records)

    async def step(self, records: Records) -> None:
        """Serve `records`. What we ourselves wrote, and how far others are, is no news."""
        if self.observed > 0 and not records.revision and not records.by_key:
            # A folder that has lost its count is not there any more: not the same as "all objects are gone".
            self.failure = "the folder of objects is gone"
            return
        writers = {name: state.status for name, state in records.writers.items()}
        stamp = (records.revision, {name: status for name, status in writers.items() if name != WRITER})
        if stamp == self._seen:
            self.failure = ""
            self.writers = writers  # our own words count as read as well: `lab apply` waits for that
            return
        started = time.perf_counter()
        for hear in self.listeners:
            hear(records)
        # Tenancies first: whoever is told about a pod may ask for its certificate at once.
        await self._certificates.tenancies_changed(self._tenancies.update(records))
        # All of the first stays: nobody has to look for cycles in it, again and again while others wait.
        first = self.observed < 0
        with WithoutCollection() if first else nullcontext():
            try:
                derived = await asyncio.to_thread(self._derive, records)
            except Exception as error:
                # A defect of ours: what was served stays, and readiness and /sync show that we are behind.
                self.failure = f"revision {records.revision} cannot be derived: {type(error).__name__}: {error}"
                _log.exception("%s", self.failure)
                self._wanted = MappingProxyType({})  # what changed in this snapshot is to be said with the next one
                return
            self.failure = ""
            changes = await self._serve(derived, records.revision)
            await between_others(self._waypoints.updating(records, derived))
        self._seen, self.observed = stamp, records.revision
        self.writers = writers
        self._discovery.changed()
        self._count(records, time.perf_counter() - started)
        level = logging.INFO if changes or first else logging.DEBUG
        _log.log(level, "revision %d: %d resources changed", records.revision, changes)
        # Let the streams write before the slower work on files begins.
        await asyncio.sleep(0)
        told = self._waypoints.with_gateways(derived.conditions)
        if self.enforcement is not None:
            told = with_refusals(records.refused, told, self.enforcement.policies)
        self._write_status(records, told)
        self._give_addresses(records, derived)
        self._say_of_gateways(records)

    async def _serve(self, derived: Derived, revision: int) -> int:
        """Into the catalogue; gives how many resources changed. Of very many at once each is encoded between others."""
        news = derived.changes
        if news is None or not self._catalogue.filled:
            everything: Iterable[Value] = chain(
                derived.policies.values(), derived.services.values(), derived.workloads.values()
            )
            return await between_others(self._catalogue.updating(everything, revision))
        gone = {ADDRESS_TYPE: news.gone_addresses, AUTHORIZATION_TYPE: news.gone_policies}
        return self._catalogue.change(news.put, gone, revision)

    def _count(self, records: Records, seconds: float) -> None:
        self._metrics.derive_seconds.observe(seconds)
        self._metrics.revision.set(records.revision)
        self._metrics.refused_objects.set(len(records.refused))
        for url in TYPES:
            self._metrics.resources.labels(url.rpartition(".")[2]).set(len(self._catalogue.resources(url)))

    def _write_status(self, records: Records, conditions: Mapping[str, Sequence[Condition]]) -> None:
        before, changed = self._wanted, records.changed
        self._served, self._wanted = records, conditions
        without_waypoint = 0
        for key, wanted in conditions.items():
            without_waypoint += any((one.type, one.status) == (BOUND, "False") for one in wanted)
            if changed is not None and key not in changed and before.get(key) is wanted:
                continue
            if self.enforcement is None or not self.enforcement.waits(key):
                self.say(key)
        self._metrics.without_waypoint.set(without_waypoint)
        for key in self._said.keys() - conditions.keys():
            del self._said[key]
            self._say(key, ())
        self._status.observed(records.revision)

    def say(self, key: str) -> None:
        """Have everything that is known of an object written to it, unless that was said already."""
        if key not in self._wanted:
            return
        record = self._served.by_key.get(key)
        uid, generation = (record.uid, record.generation) if record is not None else ("", 0)
        verdict = self.enforcement.verdict(key) if self.enforcement is not None else None
        wanted = (*self._wanted[key], *self._waypoints.conditions(key), *((verdict,) if verdict is not None else ()))
        if self._said.get(key) != (uid, generation, wanted):
            self._said[key] = (uid, generation, wanted)
            self._say(record if record is not None else key, wanted)
        listeners = self._waypoints.listeners_of(key)
        if record is not None and listeners is not None and self._listed.get(key, listeners) != listeners:
            self._listed[key] = listeners
            self._quietly(self._status.gateway_listeners, record, listeners)

    def _say(self, target: Record | str, conditions: Sequence[Condition]) -> None:
        try:
            if conditions or isinstance(target, Record):
                self._status.conditions(target, conditions)
            else:
                self._status.forget(target)
        except OSError as error:
            _log.error("cannot write the status of %s: %s", getattr(target, "key", target), error)

    def _say_of_gateways(self, records: Records) -> None:
        """Of their listeners, and of the routes and policies on them."""
        parents = self._waypoints.parents()
        for key in self._on_gateways | parents.keys():
            route = records.by_key.get(key)
            if route is not None:
                self._quietly(self._status.route_parents, route, parents.get(key, ()))
        self._on_gateways = frozenset(parents)
        ancestors = self._waypoints.ancestors()
        for key in self._with_ancestors | ancestors.keys():
            policy = records.by_key.get(key)
            if policy is not None:
                self._quietly(self._status.policy_ancestors, policy, ancestors.get(key, ()))
        self._with_ancestors = frozenset(ancestors)
        self._listed = dict(self._waypoints.listeners())
        for key, listeners in self._listed.items():
            gateway = records.by_key.get(key)
            if gateway is not None:
                self._quietly(self._status.gateway_listeners, gateway, listeners)

    def _quietly(self, say: Callable[[Record, Sequence[Any]], None], record: Record, what: Sequence[Any]) -> None:
        try:
            say(record, what)
        except OSError as error:
            _log.error("cannot write the status of %s: %s", record.key, error)

    def _give_addresses(self, records: Records, derived: Derived) -> None:
        for gateway, addresses in self._waypoints.wanted_addresses(records):
            try:
                self._status.gateway_addresses(gateway, addresses)
            except OSError as error:
                _log.error("cannot give %s its address: %s", gateway.key, error)
            self._seen = None
        for key, given in derived.allocations.items():
            record = records.by_key.get(key)
            if record is None:
                continue
            try:
                self._status.addresses(record, [(host, str(address)) for host, address in given])
            except OSError as error:
                _log.error("cannot give %s its addresses: %s", key, error)
            # What was given is served once it can be read: the next snapshot is news although we wrote it.
            self._seen = None
