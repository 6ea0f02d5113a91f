"""Workloads outside Kubernetes: who may join by which ticket, what is kept of them, and when they are gone.

A machine that joins becomes a WorkloadEntry made from its WorkloadGroup's template. It gives signs of life; with them
comes whether it is well. Without any for the grace time its entry is removed, as it is when it says that it leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ambient.ca.ticket import admit, checked, digest, expired, new_secret, read_session, same_digest
from ambient.ca.token import Caller
from ambient.control.access import Verifier
from ambient.control.allowance import Allowance
from ambient.control.join_address import Arrivals, check_address, doubles
from ambient.control.join_store import EntryStore, Object
from ambient.errors import InvalidInput, MeshError, Refused, Unavailable
from ambient.kube import syntax
from ambient.kube.joined import DOMAIN, GROUP, REDIRECTION, SEEN, SESSION, UNHEALTHY, is_joined, joined_node
from ambient.kube.networking import WorkloadEntry, WorkloadGroup
from ambient.kube.objects import Records, parse_object, record_key
from ambient.model.address import IpAddress, parse_ip

NAMESPACE: Final = "_join"
"""Where the accounts of machines that joined live: no Kubernetes namespace can have this name."""
ACCOUNTS: Final = frozenset({f"{NAMESPACE}/agent", f"{NAMESPACE}/ztunnel"})
NODE_ACCOUNTS: Final = frozenset({f"{NAMESPACE}/ztunnel"})
_LONGEST_WHY: Final = 200
_NAME_PART: Final = re.compile(r"[^a-z0-9]+")
_MOST_SPENT: Final = 4096
_BEATS: Final = 15
_CHANGES: Final = 5
"""So many signs of life, and changes of what they say, are taken from one machine at once; then at a steady pace."""
_STRANGERS: Final = 8
"""So many at once are looked up in the store of those who have proven nothing yet; the others wait."""
_T = TypeVar("_T")

_log = logging.getLogger("ambient.control.join")


@dataclass(frozen=True, slots=True)
class Mesh:
    """What a machine has to know of us."""

    cluster: str
    trust_domain: str
    network: str
    cluster_domain: str


class Joins:
    """`records`: the objects as they are known now."""

    def __init__(
        self,
        store: EntryStore,
        records: Callable[[], Records],
        mesh: Mesh,
        *,
        grace_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._records = records
        self._mesh = mesh
        self._grace_s = grace_s
        self._clock = clock
        self._hearing_since = clock()
        self._spent: dict[str, None] = {}
        self._strangers = asyncio.Semaphore(_STRANGERS)
        self._arrivals = Arrivals(grace_s)
        self._beats = Allowance(_BEATS, grace_s / 30)
        self._changes = Allowance(_CHANGES, grace_s / 6)

    async def join(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        """Spend a ticket: {namespace, group, number, secret, address} in; what the machine is, its session's secret and
        its group's probe out. Raises InvalidInput, Refused, Unavailable; then nothing is kept."""
        namespace, name, number, secret = checked(*(ask.get(key) for key in ("namespace", "group", "number", "secret")))
        address = parse_ip(str(ask.get("address", "")))
        async with self._strangers:
            group = await self._store.read(WorkloadGroup.kind, namespace, name)
        annotations = (group or {}).get("metadata", {}).get("annotations") or {}
        if group is None or number in self._spent:
            annotations = {}
        key = admit(annotations, number, secret, self._clock())
        assert group is not None
        record = parse_object(group, "join", observed=True)
        assert isinstance(record, WorkloadGroup)
        check_address(address, self._records())
        session = new_secret()
        entry = entry_of(record, address, session, self._clock())
        called = entry["metadata"]["name"]
        complaint = syntax.dns_subdomain(joined_node(namespace, called))
        if complaint:
            raise InvalidInput("group", f"{namespace}/{name}", complaint)
        others = [other for other in expired(annotations, self._clock()) if other != key]
        arriving = record_key(WorkloadEntry.kind, namespace, called)
        self._arrivals.take(address, arriving, self._records().by_key, self._clock())
        try:
            # Spent first: who then fails to get his entry asks for a new ticket, and nobody gets two for one.
            self._note_spent(number)
            await self._store.annotate(group, dict.fromkeys([key, *others]))
            await self._store.create(entry)
        except BaseException:
            self._arrivals.give_back(str(address))
            raise
        _log.info("ticket %s of group %s/%s is spent: %s joins as %s", number, namespace, name, address, called)
        return {
            "namespace": namespace,
            "entry": called,
            "node": joined_node(namespace, called),
            "session": session,
            "serviceAccount": record.template.service_account or "default",
            "probe": dict(record.probe),
            "cluster": self._mesh.cluster,
            "trustDomain": self._mesh.trust_domain,
            "clusterDomain": self._mesh.cluster_domain,
            "network": record.template.network or self._mesh.network,
            "beatSeconds": self._grace_s / 6,
        }

    async def beat(self, token: str, *, why: str, captured: bool) -> None:
        """A sign of life. `why`: it is not well, because; `captured`: its traffic goes through its ztunnel. Raises
        Refused for who is no (longer) a member, Unavailable for one who speaks too often.

        Who changes all the time is written down at a steady pace: what is left out is said by his next one.
        """
        entry = await self._store_or_deaf(self._member(token, paced=True))
        annotations = entry["metadata"].get("annotations") or {}
        wanted: dict[str, str | None] = {
            UNHEALTHY: why[:_LONGEST_WHY] or None,
            REDIRECTION: "enabled" if captured else None,
        }
        changes = {key: value for key, value in wanted.items() if annotations.get(key) != value}
        if changes and not self._changes.spend(_title(entry), self._clock()):
            changes = {}
        if changes or self._clock() - _seen(annotations) > self._grace_s / 3:
            seen = {**changes, SEEN: str(int(self._clock()))}
            await self._store_or_deaf(self._store.annotate(entry, seen))
        if UNHEALTHY in changes:
            _log.info("%s is %s", _title(entry), f"not well: {why}" if why else "well")

    async def leave(self, token: str) -> None:
        """The machine goes: its entry goes at once. Raises as `beat`."""
        entry = await self._member(token)
        await self._store.delete(entry)
        self._arrivals.give_back(str(entry["spec"].get("address", "")))
        _log.info("%s left", _title(entry))

    async def sweep(self) -> None:
        """Remove the entries that have given no sign of life for the grace time; not before we could have heard one. Of
        two with one address the younger goes.

        Where the store cannot be asked no sign of life is kept either: from then on everybody has the grace again.
        """
        joined = [record for record in self._records().of(WorkloadEntry) if is_joined(record.annotations)]
        if joined:
            await self._store_or_deaf(self._store.read(WorkloadEntry.kind, joined[0].namespace, joined[0].name))
        for record, older in doubles(joined):
            entry = await self._store_or_deaf(self._store.read(WorkloadEntry.kind, record.namespace, record.name))
            if entry is not None:
                await self._store.delete(entry)
                _log.warning("%s joined with the address of %s: removed", _title(entry), older.key)
        now = self._clock()
        if now - self._hearing_since < self._grace_s:
            return
        for record in joined:
            if now - _seen(record.annotations) <= self._grace_s:
                continue
            entry = await self._store_or_deaf(self._store.read(WorkloadEntry.kind, record.namespace, record.name))
            annotations = (entry or {}).get("metadata", {}).get("annotations") or {}
            if entry is not None and is_joined(annotations) and now - _seen(annotations) > self._grace_s:
                await self._store.delete(entry)
                _log.warning("%s gave no sign of life for %g s: removed", _title(entry), self._grace_s)

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(self._grace_s / 6)
            try:
                await self.sweep()
            except MeshError as error:
                _log.warning("cannot remove who is gone: %s", error)

    async def _store_or_deaf(self, answer: Awaitable[_T]) -> _T:
        """What the store answers; when it does not, nobody's silence counts until the grace time after."""
        try:
            return await answer
        except Unavailable:
            self._hearing_since = self._clock()
            raise

    async def _member(self, token: str, *, paced: bool = False) -> Object:
        """The entry that a session's token speaks for, as it is stored. `paced`: asked for a beat."""
        parts = read_session(token)
        if parts is None:
            raise Refused("token", why="not a session of a workload that has joined")
        _, namespace, name, secret = parts
        known = self._records().find(WorkloadEntry, namespace, name)
        is_known = known is not None and same_digest(known.annotations.get(SESSION, ""), secret)
        if paced and is_known and not self._beats.spend((namespace, name), self._clock()):
            raise Unavailable("a sign of life", f"{namespace}/{name}", "comes too often")
        async with contextlib.nullcontext() if is_known else self._strangers:
            entry = await self._store.read(WorkloadEntry.kind, namespace, name)
        annotations = (entry or {}).get("metadata", {}).get("annotations") or {}
        if entry is None or not same_digest(annotations.get(SESSION, ""), secret):
            raise Refused("token", why="this machine is no member (any more)")
        return entry

    def _note_spent(self, number: str) -> None:
        self._spent[number] = None
        while len(self._spent) > _MOST_SPENT:
            del self._spent[next(iter(self._spent))]


class JoinedTokens:
    """Verifies sessions of machines that joined by the entries there are, all other tokens by `others`."""

    def __init__(self, others: Verifier) -> None:
        self._others = others
        self.records = Records()

    def hear(self, records: Records) -> None:
        """The objects, from now on."""
        self.records = records

    async def verify(self, token: str) -> Caller:
        """Raises Refused, Unavailable."""
        parts = read_session(token)
        if parts is None:
            caller = await self._others.verify(token)
            if caller.node.endswith(DOMAIN):
                raise Refused("token", why=f"no node of a cluster may be called {caller.node}")
            return caller
        role, namespace, name, secret = parts
        entry = self.records.find(WorkloadEntry, namespace, name)
        known = entry.annotations.get(SESSION, "") if entry is not None and not entry.deleting else ""
        if not same_digest(known, secret):
            raise Refused("token", why="this machine is no member (yet, or any more)")
        return Caller(joined_node(namespace, name), NAMESPACE, role)


def entry_of(group: WorkloadGroup, address: IpAddress, session: str, now_unix: float) -> Object:
    """The WorkloadEntry of a machine with this address. Pure."""
    template = group.template
    name = f"{group.name}-{_NAME_PART.sub('-', str(address)).strip('-')}"
    spec: Object = {"address": str(address), "serviceAccount": template.service_account or "default"}
    for key, value in (
        *(("ports", dict(template.ports)), ("labels", dict(template.labels)), ("network", template.network)),
        *(("locality", template.locality), ("weight", template.weight)),
    ):
        if value:
            spec[key] = value
    metadata: Object = {
        "name": name,
        "namespace": group.namespace,
        "labels": dict(group.entry_labels),
        "annotations": {
            **group.entry_annotations,
            GROUP: group.name,
            SESSION: digest(session),
            SEEN: str(int(now_unix)),
            UNHEALTHY: "has just joined",
        },
    }
    if group.uid:
        owner = {"apiVersion": "networking.istio.io/v1", "kind": group.kind, "name": group.name, "uid": group.uid}
        metadata["ownerReferences"] = [owner]
    return {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": metadata, "spec": spec}


def _seen(annotations: Mapping[str, str]) -> float:
    text = annotations.get(SEEN, "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _title(entry: Object) -> str:
    return f"WorkloadEntry {entry['metadata']['namespace']}/{entry['metadata']['name']}"
