"""A discovery stream that behaves as istiod's does where that differs from ours, for tests of clients.

Addresses have versions, policies none (so they always come again on a new stream); everything due goes into one
response; a NACK is noted and nothing is sent again; stale nonces are ignored; an on-demand client gets its node's
workloads and those of the services it follows unasked, is told of what is missing once, and is not told when
something it asked for by an alias comes into being later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ambient.model.workload import Workload
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, Record, Resource, encode, name_of, type_of
from ambient.xds.messages import DeltaRequest, DeltaResponse


@dataclass
class Istiod:
    """What it knows; `broken` names get bytes that nobody can read."""

    records: dict[str, Record] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    def put(self, *records: Record) -> set[str]:
        self.records.update((name_of(record), record) for record in records)
        return {name_of(record) for record in records}

    def drop(self, *names: str) -> set[str]:
        for name in names:
            del self.records[name]
        return set(names)

    def resources(self, url: str) -> dict[str, Resource]:
        found = {}
        for name, record in self.records.items():
            if type_of(record) == url:
                made = encode(record)
                body = b"\xff" if name in self.broken else made.body
                version = "" if url == AUTHORIZATION_TYPE else made.version
                found[name] = replace(made, body=body, version=version)
        return found


@dataclass
class _Watched:
    wildcard: bool
    names: set[str]
    nonce: str = ""


class IstiodStream:
    """One stream: `receive` requests, tell it what `changed`, `pull` responses."""

    def __init__(self, istiod: Istiod, *, node: str = "n1") -> None:
        self._istiod = istiod
        self._node = node
        self._watched: dict[str, _Watched] = {}
        self._out: list[DeltaResponse] = []
        self._sequence = 0
        self.nacks: list[str] = []
        self.acks = 0

    def pull(self) -> DeltaResponse | None:
        return self._out.pop(0) if self._out else None

    def receive(self, request: DeltaRequest) -> None:
        watched = self._watched.get(request.type_url)
        if watched is None:
            wildcard = not request.subscribe and not request.unsubscribe
            names = (set(request.subscribe) | set(request.versions)) - set(request.unsubscribe) - {"*"}
            self._watched[request.type_url] = _Watched(wildcard, names)
            self._begin(request)
            return
        if request.error is not None:
            self.nacks.append(request.error)
            return
        if request.nonce:
            if request.nonce == watched.nonce:
                self.acks += 1
            return
        watched.names |= set(request.subscribe)
        watched.names -= set(request.unsubscribe)
        if request.subscribe:
            self._send(request.type_url, *self._look_up(request.type_url, request.subscribe))

    def changed(self, names: Iterable[str]) -> None:
        """Push what the client follows of these (names of resources, never aliases)."""
        for url, watched in self._watched.items():
            resources = self._istiod.resources(url)
            due = set(names)
            if not watched.wildcard:
                due &= watched.names | set(self._unasked(url))
            found = [resources[name] for name in sorted(due) if name in resources]
            kinds = {AUTHORIZATION_TYPE} if url == AUTHORIZATION_TYPE else {ADDRESS_TYPE}
            gone = [name for name in sorted(due) if name not in resources and self._kind(name) in kinds]
            if found or gone:
                self._send(url, found, gone)

    def _kind(self, name: str) -> str:
        return ADDRESS_TYPE if "//" in name or "." in name else AUTHORIZATION_TYPE

    def _begin(self, request: DeltaRequest) -> None:
        url = request.type_url
        resources, watched = self._istiod.resources(url), self._watched[url]
        wanted = set(resources) if watched.wildcard else watched.names | set(self._unasked(url))
        found = [
            resources[name]
            for name in sorted(wanted & set(resources))
            if not resources[name].version or request.versions.get(name) != resources[name].version
        ]
        self._send(url, found, [name for name in request.versions if name not in resources])

    def _unasked(self, url: str) -> list[str]:
        """The workloads of the client's node, and those behind the services it follows."""
        names = self._watched[url].names
        workloads = [one for one in self._istiod.records.values() if isinstance(one, Workload)]
        return [one.uid for one in workloads if one.node == self._node or set(one.services) & names]

    def _look_up(self, url: str, asked: Iterable[str]) -> tuple[list[Resource], list[str]]:
        resources, missing, found = self._istiod.resources(url), [], set()
        for name in asked:
            hits = {n for n, one in resources.items() if name == n or name in one.aliases}
            found |= hits
            if not hits:
                missing.append(name)
        self._watched[url].names |= found
        found |= {name for name in self._unasked(url) if name in resources}
        return [resources[name] for name in sorted(found)], missing

    def _send(self, url: str, found: list[Resource], gone: list[str]) -> None:
        self._sequence += 1
        watched = self._watched[url]
        watched.nonce = f"i{self._sequence}"
        watched.names |= {one.name for one in found}
        self._out.append(
            DeltaResponse(
                type_url=url,
                nonce=watched.nonce,
                resources=tuple(found),
                removed=tuple(gone),
                with_aliases=not watched.wildcard,
            )
        )
