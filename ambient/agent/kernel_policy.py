"""Keeps the kernel's rows of policy up with what discovery has told: what they refuse never wakes ztunnel.

Rows are made whenever policies, workloads or pods change, from the same policies by `ambient.model.deny`; few at once,
before the change is acknowledged, many in a thread. What the kernel does not take leaves the last complete table where
it is, and is tried again. May not judge: what no row refuses is ztunnel's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final, Protocol

from ambient.agent.converge import State, Tracked
from ambient.agent.enrol import PodTarget
from ambient.agent.kernel_datagrams import Datagrams, judged_as
from ambient.datapath import deny_rows
from ambient.datapath.deny import DenyRow, Table
from ambient.datapath.deny_rows import Numbers
from ambient.datapath.layout import Side
from ambient.errors import KernelError, MeshError
from ambient.model.address import IpAddress
from ambient.model.deny import Guarded, Rows, names_destinations, names_sources, of_arriving, of_leaving
from ambient.model.identity import Identity
from ambient.model.outcome import Denied, DryRun
from ambient.model.workload import Workload

LEASE_S: Final = 300.0
"""So long after the agent's last word the kernel asks its rows still; then it leaves TCP to ztunnel."""
_AT_ONCE: Final = 500
"""So many policies are made into rows between two other things that the agent does; more go to a thread."""
_START_BITS: Final = 31
_SHADOWS: Final = {Side.IN: Side.SHADOW_IN, Side.OUT: Side.SHADOW_OUT}

log = logging.getLogger("ambient.agent.policy")


class Tables(Protocol):
    """deny.h, as `ambient.datapath.deny` has it."""

    def replace(self, tables: Mapping[Table, list[DenyRow]], /) -> Mapping[Table, KernelError]: ...
    def delete(self, tables: Iterable[Table], /) -> None: ...
    def tables(self) -> list[Table]: ...


class Sets(Protocol):
    """shadow.h."""

    def make(self, number: int, /) -> None: ...
    def clear(self) -> None: ...
    def items(self) -> Mapping[int, int]: ...


class Lease(Protocol):
    """policy_lease.h."""

    def renew(self, seconds: float, /) -> None: ...


class Knowledge(Protocol):
    """What discovery knows, as `ambient.agent.discovery` has it. `current`: it is connected and lacks nothing."""

    @property
    def current(self) -> bool: ...
    def guarded(self, pod: PodTarget, /) -> tuple[Workload, Guarded] | None: ...
    def tunnels_to(self, source: Workload, address: IpAddress, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Pods:
    """`captured` are in the mesh now; of `others` the rows that are there stay. `interfaces`: the node's ends of their
    veths, by uid."""

    captured: tuple[PodTarget, ...] = ()
    others: tuple[PodTarget, ...] = ()
    interfaces: Mapping[str, int] = field(default_factory=dict)


def pods_of(tracked: Collection[Tracked], interfaces: Mapping[str, int]) -> Pods:
    """Those that are in, and those that are on their way."""
    return Pods(
        tuple(one.pod for one in tracked if one.state is State.ENROLLED),
        tuple(one.pod for one in tracked if one.state in (State.WAITING, State.RELEASING)),
        interfaces,
    )


@dataclass(frozen=True, slots=True)
class _Arriving:
    pod: Guarded

    def rows(self, address: IpAddress) -> Rows:
        return of_arriving(self.pod, address)

    def alike(self, address: IpAddress) -> Hashable | None:
        """What has the same here has the same rows; None: nothing else has."""
        pod = self.pod
        if names_destinations(pod.policies):
            return None
        return address.version, id(pod.policies), pod.missing, pod.waypoints, pod.open_ports

    @property
    def cost(self) -> int:
        return len(self.pod.policies)


@dataclass(frozen=True, slots=True)
class _Leaving:
    source: Identity
    others: Mapping[IpAddress, Guarded]

    def rows(self, address: IpAddress) -> Rows:
        return of_leaving(self.source, address, self.others)

    def alike(self, address: IpAddress) -> Hashable | None:
        """As of what arrives."""
        if any(
            names_sources(policies)
            for policies in {id(one.policies): one.policies for one in self.others.values()}.values()
        ):
            return None
        return address.version, self.source, id(self.others)

    @property
    def cost(self) -> int:
        return sum(len(other.policies) for other in self.others.values())


_Input = _Arriving | _Leaving


class KernelPolicy:
    """`rows` counts the enforced ones; `stale` says why, of each table that is older than the policies; `failures` are
    attempts that came to nothing."""

    def __init__(
        self,
        tables: Tables,
        sets: Sets,
        lease: Lease,
        knowledge: Knowledge,
        pods: Callable[[], Pods],
        threads: Executor,
    ) -> None:
        self._tables = tables
        self._lease = lease
        self._sets = sets
        self._knowledge = knowledge
        self._pods = pods
        self._threads = threads
        # Rows of an agent before us have its numbers until they are made again: they are not to be taken for ours.
        self._numbers = Numbers(after=secrets.randbits(_START_BITS))
        self._made: dict[Table, _Input] = {}
        self._rows: dict[Table, int] = {}
        self._known: dict[str, Guarded] = {}
        self._datagrams = Datagrams(self._numbers)
        self._due: dict[Table, _Input] = {}
        self._alike: dict[Hashable, tuple[_Input, Rows]] = {}
        self._wake = asyncio.Event()
        self._sets.clear()
        self._tables.delete([table for table in self._tables.tables() if table[1] in _SHADOWS.values()])
        self.stale: dict[Table, str] = {}
        self.failures = 0

    @property
    def rows(self) -> int:
        return sum(self._rows.values())

    def counts(self) -> Mapping[Denied | DryRun, int]:
        """Since the agent began: how often the kernel refused for each reason, and how often each dry-run policy would
        have decided a connection that the kernel saw."""
        found: Counter[Denied | DryRun] = Counter()
        for number, count in self._sets.items().items():
            denial = self._numbers.denial(number)
            for meaning in self._numbers.effects(number) if denial is None else (denial,):
                found[meaning] += count
        return found

    def denial(self, number: int) -> Denied | None:
        """What a row of this number refuses with."""
        return self._numbers.denial(number)

    def refresh(self) -> None:
        """Bring the rows up to what is known now; the larger part of it later, in `run`. Never raises: whoever tells of
        a change must not suffer from what the kernel says to it."""
        with self._unharmed():
            self._refresh()
            if self._knowledge.current:
                self._lease.renew(LEASE_S)

    @contextlib.contextmanager
    def _unharmed(self) -> Iterator[None]:
        """What fails is tried again with the next change."""
        try:
            yield
        except (MeshError, OSError) as error:
            log.error("rows of policy: %s", error)
            self.failures += 1
        except Exception:
            log.exception("rows of policy: unexpected")
            self.failures += 1

    def _refresh(self) -> None:
        pods = self._pods()
        wanted, unknown = self._wanted(pods)
        kept = {(ip, side) for pod in (*pods.others, *unknown) for ip in pod.addresses for side in _SHADOWS}
        tables = self._tables.tables()
        unjudged = {ip for pod in (*pods.others, *unknown) for ip in judged_as(pod, pods.interfaces)}
        self._put_datagrams(pods, unjudged, tables)
        there = [table for table in tables if table[1] in _SHADOWS]
        self._forget([table for table in there if table not in wanted and table not in kept])
        self._due = {key: inputs for key, inputs in wanted.items() if self._made.get(key) != inputs}
        for key in [key for key in self.stale if key[1] in _SHADOWS and key not in wanted]:
            del self.stale[key]
        if sum(inputs.cost for inputs in self._due.values()) > _AT_ONCE:
            self._forget_strangers()
            self._wake.set()
            return
        due, self._due = self._due, {}
        self._put({key: (inputs, inputs.rows(key[0])) for key, inputs in due.items()})

    async def run(self) -> None:
        """Make what `refresh` left, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._alike.clear()
            while self._due:
                key, inputs = next(iter(self._due.items()))
                with self._unharmed():
                    rows = await loop.run_in_executor(self._threads, self._rows_of, key[0], inputs)
                    if self._due.get(key) is inputs:
                        self._put({key: (inputs, rows)})
                if self._due.get(key) is inputs:
                    del self._due[key]

    def _rows_of(self, address: IpAddress, inputs: _Input) -> Rows:
        """Those of an input of the same kind where there was one (which is kept, so that what it names by id lives)."""
        alike = inputs.alike(address)
        found = None if alike is None else self._alike.get(alike)
        if found is None:
            found = (inputs, inputs.rows(address))
            if alike is not None:
                self._alike[alike] = found
        return found[1]

    def _wanted(self, pods: Pods) -> tuple[dict[Table, _Input], list[PodTarget]]:
        """What each table is to be made from, and the pods of which not all is known."""
        known: dict[str, tuple[PodTarget, Workload, Guarded]] = {}
        for pod in pods.captured:
            found = self._knowledge.guarded(pod)
            if found is not None:
                before = self._known.get(pod.uid)
                known[pod.uid] = (pod, found[0], before if before == found[1] else found[1])
        self._known = {uid: guarded for uid, (_, _, guarded) in known.items()}
        wanted: dict[Table, _Input] = {}
        others = self._reached(list(known.values()))
        for pod, workload, guarded in known.values():
            versions = Counter(ip.version for ip in pod.addresses)
            for ip in pod.addresses:
                wanted[ip, Side.IN] = _Arriving(guarded)
                if versions[ip.version] == 1:  # else the address that ztunnel will use is not known
                    wanted[ip, Side.OUT] = _Leaving(workload.identity, others[workload.network, ip.version])
        return wanted, [pod for pod in pods.captured if pod.uid not in known]

    def _reached(
        self, pods: list[tuple[PodTarget, Workload, Guarded]]
    ) -> Mapping[tuple[str, int], dict[IpAddress, Guarded]]:
        """Which addresses of these pods the others on the same network reach directly in a tunnel; by network and
        version of IP. (What a pod sends to itself is not seen by the programs, so that it may be in there.)"""
        found: dict[tuple[str, int], dict[IpAddress, Guarded]] = defaultdict(dict)
        for pod, workload, guarded in pods:
            asking = next((one for other, one, _ in pods if one.network == workload.network and other is not pod), None)
            for ip in pod.addresses:
                if asking is not None and self._knowledge.tunnels_to(asking, ip):
                    found[workload.network, ip.version][ip] = guarded
        return found

    def _forget_strangers(self) -> None:
        """Tables that name an address of a pod that is gone may not wait: somebody else may have it."""
        strangers = []
        for key, inputs in self._due.items():
            made = self._made.get(key)
            if isinstance(made, _Leaving) and isinstance(inputs, _Leaving) and made.others.keys() - inputs.others:
                strangers.append(key)
        self._forget(strangers)

    def _put(self, made: Mapping[Table, tuple[_Input, Rows]]) -> None:
        told: dict[Table, list[DenyRow]] = {}
        empty: list[Table] = []
        for (pod, side), (_, rows) in made.items():
            for table, its in (
                ((pod, side), deny_rows.enforced(rows.enforced, self._numbers)),
                ((pod, _SHADOWS[side]), deny_rows.shadow(rows.shadow, self._numbers)),
            ):
                if its:
                    told[table] = its
                else:
                    empty.append(table)
        self._tables.delete(empty)
        refused = {**self._make_sets(told), **self._tables.replace(told)}
        for key, (inputs, rows) in made.items():
            error = refused.get(key) or refused.get((key[0], _SHADOWS[key[1]]))
            if error is None:
                self.stale.pop(key, None)
                self._made[key] = inputs
                self._rows[key] = len(rows.enforced)
                continue
            if self.stale.get(key) != str(error):
                log.error("%s of %s: the last complete rows of policy stay: %s", key[1].name, key[0], error)
            self.stale[key] = str(error)

    def _put_datagrams(self, pods: Pods, kept: Collection[IpAddress], there: Iterable[Table]) -> None:
        known = [(pod, self._known[pod.uid]) for pod in pods.captured if pod.uid in self._known]
        told = self._datagrams.plan(known, kept, there, pods.interfaces)
        self._make_sets({})
        self._tables.delete(told.gone)
        refused = self._tables.replace(told.tables)
        self._datagrams.forget(refused)
        for table in [table for table in self.stale if table[1] not in _SHADOWS and table not in refused]:
            del self.stale[table]
        self.stale |= {table: str(error) for table, error in refused.items()}

    def _make_sets(self, told: dict[Table, list[DenyRow]]) -> Mapping[Table, KernelError]:
        """Have the new numbers counted; where that fails no shadow is told."""
        try:
            while self._numbers.made:
                self._sets.make(self._numbers.made[-1])
                self._numbers.made.pop()
        except KernelError as error:
            shadows = [table for table in told if table[1] in _SHADOWS.values()]
            return {table: error for table in shadows if told.pop(table)}
        return {}

    def _forget(self, keys: list[Table]) -> None:
        self._tables.delete([(pod, which) for pod, side in keys for which in (side, _SHADOWS[side])])
        for key in keys:
            self._made.pop(key, None)
            self._rows.pop(key, None)
