"""Kubernetes objects in, what the mesh is told out: workloads, services, policies and status conditions. Pure.

The same records always give the same result, whatever came before; forms and names are those of Istio's control
plane, so that its proxies and tools understand them. `Derivation` keeps what it derived and does again only what rests
on something that changed; its result is that of `derive`, which starts from nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ambient.control.derive_closed import closed_peer, closing
from ambient.control.derive_entry import allocations, derive_entry, slice_workloads
from ambient.control.derive_network import gateway_workloads
from ambient.control.derive_peer import converted, shared
from ambient.control.derive_policy import derive_policy, refusal
from ambient.control.derive_service import derive_service, remote_identities
from ambient.control.derive_target import target_condition, telemetry_conditions
from ambient.control.derive_waypoint import Waypoint, bind, waypoint
from ambient.control.derive_workload import entry_workload, pod_workload
from ambient.control.derive_world import DeriveSettings, World
from ambient.kube.networking import EndpointSlice, ServiceEntry, WorkloadEntry
from ambient.kube.objects import (
    AuthorizationPolicy,
    Condition,
    Namespace,
    PeerAuthentication,
    Pod,
    Record,
    Records,
    RefusedObject,
    RequestAuthentication,
    Telemetry,
)
from ambient.kube.objects import Service as KubeService
from ambient.model.address import IpAddress
from ambient.model.policy import Authorization
from ambient.model.workload import Service, Workload

_GATEWAYS = "all network gateways"
_SHARED = "the shared policy"
_ALLOCATIONS = "all allocations"
_WHOLE = (_GATEWAYS, _SHARED, _ALLOCATIONS)
"""What is derived from all objects of a kind together and not from one of them."""
Value = Workload | Service | Authorization
Allocations = Mapping[str, tuple[tuple[str, IpAddress], ...]]


@dataclass(frozen=True, slots=True)
class Changes:
    """Of a `Derived` against the one before it: values that are new or different, xDS names that are gone."""

    put: tuple[Value, ...]
    gone_addresses: tuple[str, ...]
    gone_policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Derived:
    """Values by their xDS name; conditions by record key (`()` where we own the type but have nothing to say).

    `allocations`: (host, address) of ServiceEntries, by record key, that their status has to be given. `changes`: None
    when everything is new.
    """

    workloads: Mapping[str, Workload] = field(default_factory=lambda: MappingProxyType({}))
    services: Mapping[str, Service] = field(default_factory=lambda: MappingProxyType({}))
    policies: Mapping[str, Authorization] = field(default_factory=lambda: MappingProxyType({}))
    conditions: Mapping[str, tuple[Condition, ...]] = field(default_factory=lambda: MappingProxyType({}))
    allocations: Allocations = field(default_factory=lambda: MappingProxyType({}))
    changes: Changes | None = field(default=None, compare=False)
    waypoints: Mapping[str, Waypoint] = field(default_factory=lambda: MappingProxyType({}))
    """By "namespace/name" of their Gateways: those that are ready."""


@dataclass(slots=True)
class _Output:
    """What one object became. `conditions` None: of this kind we say nothing."""

    workloads: tuple[Workload, ...] = ()
    services: tuple[Service, ...] = ()
    policies: tuple[Authorization, ...] = ()
    conditions: tuple[Condition, ...] | None = None
    allocations: Allocations = field(default_factory=dict)


def derive(records: Records, settings: DeriveSettings) -> Derived:
    """Everything the mesh needs to know about these objects."""
    return Derivation(settings).update(records)


class Derivation:
    """`update` with each new snapshot. Not for use from several threads at once."""

    def __init__(self, settings: DeriveSettings) -> None:
        self._settings = settings
        self._forget()

    def _forget(self) -> None:
        self._world = World(self._settings)
        self._records: dict[str, Record] = {}
        self._refused: dict[str, RefusedObject] = {}
        self._network = ""
        self._rests_on: dict[str, set[Hashable]] = {}
        self._resting: dict[Hashable, set[str]] = {}
        self._outputs: dict[str, _Output] = {}
        self._workloads: dict[str, Workload] = {}
        self._services: dict[str, Service] = {}
        self._policies: dict[str, Authorization] = {}
        self._conditions: dict[str, tuple[Condition, ...]] = {}
        self._allocations: Allocations = {}
        self._fresh = True
        self._revision = -1
        self._spaces: frozenset[str] | None = None

    def update(self, records: Records) -> Derived:
        """What the records are derived to. After an error the next call starts from nothing."""
        try:
            return self._update(records)
        except BaseException:
            self._forget()
            raise

    def _update(self, records: Records) -> Derived:
        due = self._take(records)
        if self._network != self._world.network:
            self._network = self._world.network
            due.update(self._records, self._refused)
        if self._fresh:
            due.update(_WHOLE)
        before: dict[str, _Output] = {}
        after: dict[str, _Output] = {}
        for key in sorted(due):
            self._forget_facts(key)
            old = self._outputs.pop(key, None)
            if old is not None:
                before[key] = old
            output = self._derive(key)
            if output is not None:
                after[key] = self._outputs[key] = output
            self._remember_facts(key)
        changes = self._apply(before, after)
        fresh, self._fresh = self._fresh, False
        return Derived(
            MappingProxyType(dict(self._workloads)),
            MappingProxyType(dict(self._services)),
            MappingProxyType(dict(self._policies)),
            MappingProxyType(dict(self._conditions)),
            self._allocations,
            None if fresh else changes,
            MappingProxyType(self._waypoints()),
        )

    def _waypoints(self) -> dict[str, Waypoint]:
        world = self._world
        found = (waypoint(world, one.namespace, one.name) for one in world.gateways())
        ready = {f"{one.namespace}/{one.name}": one for one in found if one is not None}
        world.read = set()  # nobody rests on this
        return ready

    def _take(self, records: Records) -> set[str]:
        """Tell the world what changed; gives the keys of everything that has to be derived again."""
        world = self._world
        world.dirty.clear()
        world.touched.clear()
        due: set[str] = set()
        spaces, before = self._discovered(records), self._spaces
        self._spaces = spaces
        for key in self._candidates(records) if spaces == before else records.by_key.keys() | self._records.keys():
            record, old = records.by_key.get(key), self._records.get(key)
            if record is not None and spaces is not None and record.namespace not in spaces:
                record = None
            if record is None and old is not None:
                world.drop(key)
                del self._records[key]
                due.add(key)
            elif record is not None and old is not record and old != record:
                world.put(record)
                self._records[key] = record
                due.add(key)
        self._revision = records.revision
        refused = {one.key: one for one in records.refused if spaces is None or one.namespace in spaces}
        for key, one in refused.items():
            if self._refused.get(key) is not one:
                world.put_refused(one)
                due.add(key)
        for key in self._refused.keys() - refused.keys():
            world.drop_refused(key)
            due.add(key)
        self._refused = refused
        for fact in world.dirty:
            due |= self._resting.get(fact, set())
        due |= world.touched
        return due

    def _discovered(self, records: Records) -> frozenset[str] | None:
        """Namespaces that count ("" for what is in none), None: all."""
        selectors = self._settings.discovery_selectors
        if not selectors:
            return None
        found = (one for one in records.by_key.values() if isinstance(one, Namespace))
        fitting = {one.name for one in found if any(selector.fits(one.labels) for selector in selectors)}
        return frozenset(fitting | {"", self._settings.root_namespace})

    def _candidates(self, records: Records) -> Iterable[str]:
        """Keys of the records that may differ from those we have."""
        if records.changed is not None and records.revision == self._revision + 1:
            return records.changed
        gone = self._records.keys() - records.by_key.keys()
        return [*gone, *(key for key, record in records.by_key.items() if self._records.get(key) is not record)]

    def _forget_facts(self, key: str) -> None:
        for fact in self._rests_on.pop(key, ()):
            resting = self._resting[fact]
            resting.discard(key)
            if not resting:
                del self._resting[fact]

    def _remember_facts(self, key: str) -> None:
        facts = self._world.read
        self._world.read = set()
        if facts:
            self._rests_on[key] = facts
        for fact in facts:
            self._resting.setdefault(fact, set()).add(key)

    def _apply(self, before: Mapping[str, _Output], after: Mapping[str, _Output]) -> Changes:
        put: list[Value] = []
        workloads = {one.uid: one for output in after.values() for one in output.workloads}
        services = {one.key: one for output in after.values() for one in output.services}
        policies = {one.key: one for output in after.values() for one in output.policies}
        gone_addresses = []
        gone_policies = []
        for output in before.values():
            for workload in output.workloads:
                if workload.uid not in workloads:
                    del self._workloads[workload.uid]
                    gone_addresses.append(workload.uid)
            for service in output.services:
                if service.key not in services:
                    del self._services[service.key]
                    gone_addresses.append(service.key)
            for policy in output.policies:
                if policy.key not in policies:
                    del self._policies[policy.key]
                    gone_policies.append(policy.key)
        put += [one for name, one in policies.items() if self._policies.get(name) != one]
        put += [one for name, one in services.items() if self._services.get(name) != one]
        put += [one for name, one in workloads.items() if self._workloads.get(name) != one]
        self._policies.update(policies)
        self._services.update(services)
        self._workloads.update(workloads)
        for key in before:
            self._conditions.pop(key, None)
        for key, output in after.items():
            if output.conditions is not None:
                self._conditions[key] = output.conditions
        if _ALLOCATIONS in after:
            self._allocations = MappingProxyType(after[_ALLOCATIONS].allocations)
        return Changes(tuple(put), tuple(gone_addresses), tuple(gone_policies))

    def _derive(self, key: str) -> _Output | None:
        """What the object with this key becomes now, None when there is nothing of it."""
        world = self._world
        if key == _GATEWAYS:
            return _Output(tuple(gateway_workloads(world)))
        if key == _SHARED:
            strict = shared(world)
            return _Output(policies=() if strict is None else (strict,))
        if key == _ALLOCATIONS:
            return _Output(allocations=allocations(world.all_entries()))
        record = self._records.get(key)
        refused = self._refused.get(key)
        output = None if record is None else _one(record, world)
        return output if refused is None else _with_refusal(output, refused, world)


def _one(record: Record, world: World) -> _Output | None:
    match record:
        case Pod():
            workload = pod_workload(record, world)
            return None if workload is None else _Output((workload,))
        case KubeService():
            return _service(record, world)
        case WorkloadEntry():
            workload, conditions = entry_workload(record, world)
            return _Output(() if workload is None else (workload,), conditions=conditions)
        case ServiceEntry():
            entry = derive_entry(record, world)
            return _Output(entry.workloads, entry.services, conditions=entry.conditions)
        case EndpointSlice():
            return _Output(tuple(slice_workloads(record, world)))
        case AuthorizationPolicy() | RequestAuthentication() | Telemetry() if record.target_refs:
            return _Output(conditions=(target_condition(record, world),))
        case Telemetry():
            return _Output(conditions=telemetry_conditions(record))
        case AuthorizationPolicy():
            settings = world.settings
            policy, condition = derive_policy(
                record,
                settings.root_namespace,
                dry_run=settings.dry_run_policies,
                same_domains=settings.same_domains,
            )
            return _Output(policies=() if policy is None else (policy,), conditions=(condition,))
        case PeerAuthentication():
            policy = converted(world, record)
            return None if policy is None else _Output(policies=(policy,))
    return None


def _service(record: KubeService, world: World) -> _Output | None:
    if record.type == "ExternalName":
        return None
    namespace = world.namespace(record.namespace)
    binding = bind(world, record, record.labels, "service")
    service = derive_service(
        record,
        namespace.annotations if namespace is not None else {},
        world.network,
        world.settings.domain,
        binding,
        remote_identities(world, record, record.selector),
    )
    return _Output(services=() if service is None else (service,), conditions=binding.conditions)


def _with_refusal(output: _Output | None, refused: RefusedObject, world: World) -> _Output | None:
    """A refused policy says so, and closes what it selects where no good version stands."""
    if refused.kind == AuthorizationPolicy.kind:
        instead = None if refused.stands else closing(refused, world.settings.root_namespace)
        policies = () if instead is None else (instead[0],)
        return _Output(policies=policies if output is None else output.policies, conditions=(refusal(refused),))
    if refused.kind == PeerAuthentication.kind and not refused.stands:
        policy = converted(world, closed_peer(refused))
        return None if policy is None else _Output(policies=(policy,))
    return output
