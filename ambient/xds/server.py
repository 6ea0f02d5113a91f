"""The server's side of one delta discovery stream as a state machine: requests in, responses out; no I/O, no clock.

At most one response per type is unanswered, so a slow client costs no memory: what changes meanwhile is sent as one
response after its answer. Order of what depends on each other: policies are put before the workloads that name them
(which wait while policies do), and removed only after the client has taken the workloads that no longer do.

A refused (NACKed) response: its culprits are not sent again until they change; the rest is, at once. A client of our
own kind names them; else, or where names cannot be believed, halves of the response are sent until each is found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from ambient.errors import Refused, Unavailable
from ambient.xds.catalogue import Catalogue
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, Resource
from ambient.xds.messages import DeltaRequest, DeltaResponse

MOST_NAMES: Final = 200_000
MOST_BYTES: Final = 8 << 20
"""Of a response, beside the first of a type: smaller ones leave more room for others in between."""
_MOST_FIRST_BYTES: Final = 180 << 20
"""A client takes the first response for the whole picture, so it is not cut as long as clients can take it."""


@dataclass(frozen=True, slots=True)
class Order:
    """In which order a client is told of types. `types` are looked at in turn, one may come twice. `behind`: a type
    waits while there is something of those to put. `put_after` and `removed_after`: what of a type has to wait until
    the client has today's version of those types. `last`: names that wait until it has everything else. `blames`: a
    refusal of the client's names its culprits ("name: why; name: why"); other texts may hold what any user wrote.
    `renewed_by`: who is sent a resource of this type waits for the one of that type and its name, again. `asks`: by the
    name of a resource that of what makes its client ask for it; nobody waits until a client has what it never asks for.
    """

    types: tuple[str, ...]
    behind: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    put_after: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    removed_after: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    last: frozenset[str] = frozenset()
    blames: bool = True
    renewed_by: Mapping[str, str] = field(default_factory=dict)
    asks: Callable[[str], str] = str


MESH_ORDER: Final = Order(
    (AUTHORIZATION_TYPE, ADDRESS_TYPE, AUTHORIZATION_TYPE),
    behind={ADDRESS_TYPE: (AUTHORIZATION_TYPE,)},
    removed_after={AUTHORIZATION_TYPE: (ADDRESS_TYPE,)},
)
"""Policies to put, then addresses, then the removals of policies that waited for the addresses."""


@dataclass(frozen=True, slots=True)
class _Outstanding:
    """A response without an answer. `versions`: what was sent by name, "" for a removal."""

    nonce: str
    versions: Mapping[str, str]
    revision: int


@dataclass(slots=True)
class _TypeState:
    wildcard: bool
    generation: int = -1
    names: set[str] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    parts: list[list[str]] = field(default_factory=list)
    removals: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    outstanding: _Outstanding | None = None
    acked: int = 0
    acked_nonce: str = ""


class DeltaStream:
    """One client's stream. After each `receive` and each change of the catalogue, `pull` until it gives None.

    `node`: the client's node; an on-demand client also gets that node's workloads without asking.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        node: str = "",
        prefix: str = "",
        most_bytes: int = MOST_BYTES,
        most_names: int = MOST_NAMES,
        order: Order = MESH_ORDER,
    ) -> None:
        self._catalogue = catalogue
        self._order = order
        self._most_names = most_names
        self._most_bytes = most_bytes
        self._node = node
        self._prefix = prefix
        self._sequence = 0
        self._types: dict[str, _TypeState] = {}
        self._ended = ""

    def end(self, why: str) -> None:
        """There is nothing more to come: the next `pull` says so."""
        self._ended = why

    @property
    def acked(self) -> int:
        """The highest revision of which the client has acknowledged everything, over all types it subscribed to.

        Content may change within a revision (status of pods): until that is acknowledged too, the revision is not.
        """
        revision = min((state.acked for state in self._types.values()), default=0)
        return revision if self.settled else min(revision, self._catalogue.revision - 1)

    @property
    def settled(self) -> bool:
        """The client has, and has acknowledged, everything that the catalogue holds now."""
        return bool(self._types) and all(self._settled(state) and not state.removals for state in self._types.values())

    @property
    def complete(self) -> bool:
        """It has, or refuses, all that there is: also what it has yet to ask for."""
        return self.settled and all(self._complete(url, ()) for url in self._order.types)

    @property
    def nacks(self) -> dict[str, str]:
        """What the client refuses at the moment: resource name -> its reason."""
        return {name: why for state in self._types.values() for name, why in state.reasons.items()}

    @property
    def refused(self) -> dict[tuple[str, str, str], str]:
        """The same by (type, name, version)."""
        return {
            (url, name, version): state.reasons.get(name, "")
            for url, state in self._types.items()
            for name, version in state.refused.items()
        }

    def has(self, type_url: str, name: str, version: str) -> bool:
        """The client has acknowledged this version of what it asked for by name."""
        state = self._types.get(type_url)
        if state is None or state.sent.get(name) != version or state.refused.get(name) == version:
            return False
        if name in state.again or any(name in part for part in state.parts):
            return False  # it was in a response that was refused, and is yet to be sent alone
        return state.outstanding is None or name not in state.outstanding.versions

    def last_acked(self, type_url: str) -> str:
        """Nonce of the last response of a type that the client acknowledged, "" if none."""
        state = self._types.get(type_url)
        return state.acked_nonce if state is not None else ""

    def receive(self, request: DeltaRequest) -> None:
        """Take one request. Raises Refused for a type we do not serve or too many names."""
        if not self._catalogue.serves(request.type_url):
            raise Refused("subscription", request.type_url[:200], "this server has no such type")
        state = self._types.get(request.type_url)
        if state is None:
            state = self._types[request.type_url] = self._first(request)
        else:
            self._answer(state, request)
            self._subscribe(state, request)
        # What we sent ourselves is no fault of a client's, however much there is.
        known = len(self._catalogue.resources(request.type_url)) + 2 * self._most_names
        if len(state.names) > self._most_names or len(state.sent) > known:
            raise Refused("subscription", request.type_url, f"more than {self._most_names} names")

    def pull(self) -> DeltaResponse | None:
        """The next response to send, or None until something happens. Raises Unavailable: end the stream."""
        if self._ended:
            raise Unavailable("discovery stream", why=self._ended)
        if not self._catalogue.filled:
            # A server that has just started must not take from its clients what it has yet to read.
            return None
        in_turn = [(url, False) for url in self._order.types]
        in_turn += [(url, True) for url in self._order.removed_after]  # waited for a later type that had nothing to say
        for url, late in in_turn:
            state = self._types.get(url)
            if state is not None and state.outstanding is None and (state.removals if late else self._may_put(url)):
                response = self._next(url, state)
                if response is not None:
                    return response
        return None

    def _puts_wait(self, url: str) -> bool:
        """There is something of this type to put, and an earlier response about it has yet to be answered."""
        state = self._types.get(url)
        if state is None or state.outstanding is None:
            return False
        if state.again or state.generation < 0:
            return True
        resources = self._catalogue.resources(url)
        return any(name in resources for name in self._catalogue.changed_since(url, state.generation))

    def _first(self, request: DeltaRequest) -> _TypeState:
        asked, given_back = set(request.subscribe), set(request.unsubscribe)
        wildcard = (not asked and not given_back) or ("*" in asked and "*" not in given_back)
        names = asked - given_back - {"*"}
        return _TypeState(wildcard, names=names, again=set(names), sent=dict(request.versions))

    def _subscribe(self, state: _TypeState, request: DeltaRequest) -> None:
        if "*" in request.unsubscribe:
            state.wildcard = False
        if "*" in request.subscribe:
            state.wildcard, state.generation = True, -1
        state.names |= set(request.subscribe) - {"*"}
        state.names -= set(request.unsubscribe)
        for name in request.unsubscribe:
            state.sent.pop(name, None)
        state.again |= set(request.subscribe) - {"*"}

    def _answer(self, state: _TypeState, request: DeltaRequest) -> None:
        outstanding = state.outstanding
        if outstanding is None or not request.nonce or request.nonce != outstanding.nonce:
            return
        state.outstanding = None
        if request.error is None:
            state.acked_nonce = outstanding.nonce
            state.acked = max(state.acked, outstanding.revision) if not state.removals else state.acked
            for name in outstanding.versions:
                state.refused.pop(name, None)
                state.reasons.pop(name, None)
            return
        for name, why in (culprits := self._culprits(outstanding.versions, request.error)).items():
            # The version that was sent: meanwhile there may be a newer one, which is to be sent.
            state.refused[name] = outstanding.versions[name]
            state.reasons[name] = why[:500]
        if culprits:
            state.again |= outstanding.versions.keys() - culprits.keys()
        else:
            names = sorted(outstanding.versions)
            half = len(names) // 2
            state.parts += [names[half:], names[:half]]
            state.reasons["*"] = request.error[:500]

    def _culprits(self, sent: Mapping[str, str], error: str) -> dict[str, str]:
        """Which of the names that were sent the client refuses, with its reasons; {}: it does not say."""
        if len(sent) == 1:
            name = next(iter(sent))
            return {name: error.removeprefix(f"{name}: ")}
        if not self._order.blames:
            return {}
        named = dict(part.partition(": ")[::2] for part in error.split("; "))
        return {name: why for name, why in named.items() if name in sent}

    def _next(self, url: str, state: _TypeState) -> DeltaResponse | None:
        resources = self._catalogue.resources(url)
        initial = state.generation < 0
        names = self._part(state, self._now(url, state, self._due(url, state)))
        put: list[Resource] = []
        room = _MOST_FIRST_BYTES if initial else self._most_bytes
        for name in names:
            resource = resources.get(name)
            if resource is None:
                state.removals.add(name)
            elif state.refused.get(name) != resource.version:
                if room < 0:
                    state.again.add(name)
                else:
                    put.append(resource)
                    room -= len(resource.body)
        state.removals = {name for name in state.removals if not (name in resources and self._interested(state, name))}
        removed = self._removable(url, state)
        state.removals -= removed
        if not put and not removed and not (initial and not state.again):
            if state.parts:
                return self._next(url, state)
            if not state.removals and not state.again:
                state.acked = self._catalogue.revision
            return None
        self._remember(state, put, removed)
        if (waited := self._types.get(self._order.renewed_by.get(url, ""))) is not None:
            waited.again |= {resource.name for resource in put} & waited.sent.keys()
        self._sequence += 1
        nonce = f"{self._prefix}{self._sequence}"
        versions = {**dict.fromkeys(removed, ""), **{resource.name: resource.version for resource in put}}
        state.outstanding = _Outstanding(nonce, versions, self._catalogue.revision if not state.again else state.acked)
        return DeltaResponse(
            type_url=url,
            nonce=nonce,
            resources=tuple(put),
            removed=tuple(sorted(removed)),
            system_version=str(self._catalogue.revision),
            with_aliases=not state.wildcard,
        )

    def _may_put(self, url: str) -> bool:
        if any(self._puts_wait(other) for other in self._order.behind.get(url, ())):
            return False
        return all(self._complete(other) for other in self._order.put_after.get(url, ()))

    def _complete(self, url: str, last: Collection[str] | None = None) -> bool:
        """The client has all of a type as it is today: what it has not asked for yet, too, unless it refuses the
        resource (of whatever type) of that name, which then is what would have made it ask. Not `last`."""
        last = self._order.last if last is None else last
        state, resources = self._types.get(url), self._catalogue.resources(url)
        refused = {name for one in self._types.values() for name in one.refused}
        wanted = resources.keys() - set(last) - refused - set(map(self._order.asks, refused))
        if state is None:
            return not wanted
        if state.outstanding is not None or state.parts or state.again - set(last):
            return False
        if state.generation != self._catalogue.generation:
            return False
        return state.wildcard or all(state.sent.get(name) == resources[name].version for name in wanted)

    def _now(self, url: str, state: _TypeState, names: list[str]) -> list[str]:
        """Those that need not wait until the client has everything else."""
        late = self._order.last.intersection(names)
        if not late or (names == list(late) and all(self._complete(other) for other in self._order.types)):
            return names
        state.again |= late
        return [name for name in names if name not in late]

    @staticmethod
    def _part(state: _TypeState, names: list[str]) -> list[str]:
        """While it is being found out what a client refuses: some names at a time, the others later."""
        if not state.parts:
            return names
        part = state.parts.pop()
        state.again |= set(names) - set(part)
        if not state.parts:
            state.reasons.pop("*", None)
        return part

    def _due(self, url: str, state: _TypeState) -> list[str]:
        """Names that differ from what the client has, in the order to send them; moves the state to this generation."""
        again, state.again = state.again, set()
        generation, state.generation = state.generation, self._catalogue.generation
        if not state.wildcard:
            return self._due_on_demand(url, state, again)
        if generation >= 0:
            return [*sorted(again), *(n for n in self._catalogue.changed_since(url, generation) if n not in again)]
        resources, had = self._catalogue.resources(url), state.sent
        state.sent = {}
        gone = [name for name in had if name not in resources]
        return [
            name for name, resource in resources.items() if had.get(name) != resource.version or name in again
        ] + gone

    def _due_on_demand(self, url: str, state: _TypeState, again: set[str]) -> list[str]:
        resources = self._catalogue.resources(url)
        wanted = set(state.sent)
        for asked in state.names:
            wanted |= self._catalogue.find(url, asked) or {asked}
        # A service brings its endpoints, whether it was asked for by name, by address or in an earlier stream.
        for name in tuple(wanted):
            wanted |= self._catalogue.group(url, f"service:{name}")
        if self._node:
            wanted |= self._catalogue.group(url, f"node:{self._node}")
        asked_again = {name for asked in again for name in (self._catalogue.find(url, asked) or {asked})}
        return [
            name
            for name in sorted(wanted)
            if (name in resources and state.sent.get(name) != resources[name].version)
            or (name not in resources and name in state.sent)
            or name in asked_again
        ]

    def _interested(self, state: _TypeState, name: str) -> bool:
        return state.wildcard or name in state.sent or name in state.names

    def _removable(self, url: str, state: _TypeState) -> set[str]:
        """Removals to send now: those of policies, say, wait until the client has today's workloads."""
        for other in self._order.removed_after.get(url, ()):
            waited = self._types.get(other)
            if waited is not None and (waited.removals or not self._settled(waited)):
                return set()
        return set(state.removals)

    def _settled(self, state: _TypeState) -> bool:
        current = state.generation == self._catalogue.generation
        return state.outstanding is None and current and not state.again and not state.parts

    def _remember(self, state: _TypeState, put: list[Resource], removed: set[str]) -> None:
        for name in removed:
            state.refused.pop(name, None)
            state.reasons.pop(name, None)
        if not state.wildcard:
            state.sent.update((resource.name, resource.version) for resource in put)
            for name in removed:
                state.sent.pop(name, None)
