"""Keeps the kernel's rows of policy up with what discovery has told: what they refuse never wakes ztunnel.

Rows are made whenever policies, workloads or pods change, from the same policies by `ambient.model.deny`; few at once,
before the change is acknowledged, many in a thread. What the kernel does not take leaves the last complete table where
it is, and is tried again. May not judge: what no row refuses is ztunnel's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Protocol

from ambient.agent.enrol import PodTarget
from ambient.datapath import deny_rows
from ambient.datapath.deny import DenyRow
from ambient.datapath.deny_rows import Numbers
from ambient.datapath.layout import Side
from ambient.errors import KernelError
from ambient.model.address import IpAddress
from ambient.model.deny import Guarded, Rows, of_arriving, of_leaving
from ambient.model.identity import Identity
from ambient.model.outcome import DryRun
from ambient.model.workload import Workload

_AT_ONCE: Final = 500
"""So many policies are made into rows between two other things that the agent does; more go to a thread."""
_SHADOWS: Final = {Side.IN: Side.SHADOW_IN, Side.OUT: Side.SHADOW_OUT}

log = logging.getLogger("ambient.agent.policy")


class Tables(Protocol):
    """deny.h, as `ambient.datapath.deny` has it."""

    def replace(self, pod: IpAddress, side: Side, rows: list[DenyRow], /) -> None: ...
    def delete(self, pod: IpAddress, side: Side, /) -> object: ...
    def tables(self) -> list[tuple[IpAddress, Side]]: ...


class Sets(Protocol):
    """shadow.h."""

    def make(self, number: int, /) -> None: ...
    def clear(self) -> None: ...
    def items(self) -> Mapping[int, int]: ...


class Knowledge(Protocol):
    """What discovery knows, as `ambient.agent.discovery` has it."""

    def guarded(self, pod: PodTarget, /) -> tuple[Workload, Guarded] | None: ...
    def tunnels_to(self, source: Workload, address: IpAddress, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class Pods:
    """`captured` are in the mesh now; of `others` the rows that are there stay."""

    captured: tuple[PodTarget, ...] = ()
    others: tuple[PodTarget, ...] = ()


@dataclass(frozen=True, slots=True)
class _Arriving:
    pod: Guarded

    def rows(self, address: IpAddress) -> Rows:
        return of_arriving(self.pod, address)

    @property
    def cost(self) -> int:
        return len(self.pod.policies)


@dataclass(frozen=True, slots=True)
class _Leaving:
    source: Identity
    others: Mapping[IpAddress, Guarded]

    def rows(self, address: IpAddress) -> Rows:
        return of_leaving(self.source, address, self.others)

    @property
    def cost(self) -> int:
        return sum(len(other.policies) for other in self.others.values())


_Key = tuple[IpAddress, Side]
_Input = _Arriving | _Leaving


class KernelPolicy:
    """`rows` counts the enforced ones; `stale` says of each table that is older than the policies why."""

    def __init__(
        self, tables: Tables, sets: Sets, knowledge: Knowledge, pods: Callable[[], Pods], threads: Executor
    ) -> None:
        self._tables = tables
        self._sets = sets
        self._knowledge = knowledge
        self._pods = pods
        self._threads = threads
        self._numbers = Numbers()
        self._made: dict[_Key, _Input] = {}
        self._rows: dict[_Key, int] = {}
        self._known: dict[str, Guarded] = {}
        self._due: dict[_Key, _Input] = {}
        self._wake = asyncio.Event()
        self._sets.clear()
        for pod, side in self._tables.tables():
            if side in _SHADOWS.values():
                self._tables.delete(pod, side)
        self.stale: dict[_Key, str] = {}

    @property
    def rows(self) -> int:
        return sum(self._rows.values())

    def dry_run(self) -> Mapping[DryRun, int]:
        """How often each dry-run policy would have decided a connection that the kernel saw, since the agent began."""
        found: Counter[DryRun] = Counter()
        for number, count in self._sets.items().items():
            for effect in self._numbers.effects(number):
                found[effect] += count
        return found

    def rule(self, number: int) -> str:
        """The key of the policy that a row names by this number."""
        return self._numbers.rule(number)

    def refresh(self) -> None:
        """Bring the rows up to what is known now; the larger part of it later, in `run`."""
        pods = self._pods()
        wanted = self._wanted(pods)
        kept = {(ip, side) for pod in pods.others for ip in pod.addresses for side in _SHADOWS}
        for pod, side in self._tables.tables():
            if side in _SHADOWS and (pod, side) not in wanted and (pod, side) not in kept:
                self._forget((pod, side))
        self._due = {key: inputs for key, inputs in wanted.items() if self._made.get(key) != inputs}
        for key in self.stale.keys() - wanted.keys():
            del self.stale[key]
        if sum(inputs.cost for inputs in self._due.values()) > _AT_ONCE:
            self._forget_strangers()
            self._wake.set()
            return
        for key, inputs in self._due.items():
            self._put(key, inputs, inputs.rows(key[0]))
        self._due = {}

    async def run(self) -> None:
        """Make what `refresh` left, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                key, inputs = next(iter(self._due.items()))
                rows = await loop.run_in_executor(self._threads, inputs.rows, key[0])
                if self._due.get(key) is inputs:
                    del self._due[key]
                    self._put(key, inputs, rows)

    def _wanted(self, pods: Pods) -> dict[_Key, _Input]:
        """What each table is to be made from; without those of pods of which not all is known."""
        known: dict[str, tuple[PodTarget, Workload, Guarded]] = {}
        for pod in pods.captured:
            found = self._knowledge.guarded(pod)
            if found is not None:
                before = self._known.get(pod.uid)
                known[pod.uid] = (pod, found[0], before if before == found[1] else found[1])
        self._known = {uid: guarded for uid, (_, _, guarded) in known.items()}
        unknown = [pod for pod in pods.captured if pod.uid not in known]
        wanted = {key: self._made[key] for pod in unknown for ip in pod.addresses for key in self._keys_made(ip)}
        others = self._reached(list(known.values()))
        for pod, workload, guarded in known.values():
            versions = Counter(ip.version for ip in pod.addresses)
            for ip in pod.addresses:
                wanted[ip, Side.IN] = _Arriving(guarded)
                if versions[ip.version] == 1:  # else the address that ztunnel will use is not known
                    wanted[ip, Side.OUT] = _Leaving(workload.identity, others[workload.network, ip.version])
        return wanted

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

    def _keys_made(self, ip: IpAddress) -> list[_Key]:
        return [(ip, side) for side in _SHADOWS if (ip, side) in self._made]

    def _forget_strangers(self) -> None:
        """Tables that name an address of a pod that is gone may not wait: somebody else may have it."""
        for key, inputs in self._due.items():
            made = self._made.get(key)
            if isinstance(made, _Leaving) and isinstance(inputs, _Leaving) and made.others.keys() - inputs.others:
                self._forget(key)

    def _put(self, key: _Key, inputs: _Input, rows: Rows) -> None:
        pod, side = key
        try:
            self._put_shadow(pod, _SHADOWS[side], rows)
            if rows.enforced:
                self._tables.replace(pod, side, deny_rows.enforced(rows.enforced, self._numbers))
            else:
                self._tables.delete(pod, side)
        except KernelError as error:
            if self.stale.get(key) != str(error):
                log.error("%s of %s: the last complete rows of policy stay: %s", side.name, pod, error)
            self.stale[key] = str(error)
            return
        self.stale.pop(key, None)
        self._made[key] = inputs
        self._rows[key] = len(rows.enforced)

    def _put_shadow(self, pod: IpAddress, side: Side, rows: Rows) -> None:
        if not rows.shadow:
            self._tables.delete(pod, side)
            return
        told = deny_rows.shadow(rows.shadow, self._numbers)
        while self._numbers.made:
            self._sets.make(self._numbers.made[-1])
            self._numbers.made.pop()
        self._tables.replace(pod, side, told)

    def _forget(self, key: _Key) -> None:
        pod, side = key
        self._tables.delete(pod, side)
        self._tables.delete(pod, _SHADOWS[side])
        self._made.pop(key, None)
        self._rows.pop(key, None)
