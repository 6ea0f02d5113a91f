"""The client side of delta discovery as a state machine: responses in, changes and the answer out; no I/O, no clock.

What a refused response does (stricter than Istio's ztunnel, which applies the good part of it):
- nothing of it is applied; the last good version of everything stays; the answer (NACK) names each refused resource;
- it is held: when later responses have replaced every refused resource of it, the rest is applied after all. Ours
  resends the good part at once; istiod never does, so the owner calls `release` after a while, which applies the rest;
- a refused policy of which there is no good version is replaced by one that denies everything it selects, a refused
  workload or service by one to which nothing is sent: a name in doubt is not the same as a name that nobody has.
With `lax` (compat: istio) the good part is applied at once and refused policies are simply absent.

With `on_demand` only addresses that were asked for by name are told (and those of the own node); policies all.

State survives streams: `open` announces what we have, the server sends only what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ambient.errors import ProtocolError
from ambient.model.mesh import Kind, Mesh
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, Record, Refusal, Resource, decode, name_of
from ambient.xds.demand import Demand
from ambient.xds.messages import DeltaRequest, DeltaResponse, NodeInfo
from ambient.xds.policies import closed_stand_in
from ambient.xds.stand_in import closed_address
from ambient.xds.steps import finish

SLICE: Final = 50
"""Resources read in one go: about two milliseconds."""

STAND_IN_VERSION: Final = "refused"
"""What `versions` says of a stand-in; no server gives it."""
_POLICIES_FIRST: Final = (AUTHORIZATION_TYPE, ADDRESS_TYPE)
"""In this order types are asked for, so that no workload comes before the policies that it names."""
_KINDS: Mapping[str, tuple[Kind, ...]] = {ADDRESS_TYPE: ("workload", "service"), AUTHORIZATION_TYPE: ("authorization",)}


@dataclass(frozen=True, slots=True)
class Batch:
    """What one response changes, in the terms of `Mesh.apply`. `refused`: name -> reason. `first`: of its type.

    A removed address does not say whether it was a workload or a service: `gone` has it as both.
    """

    type_url: str
    put: tuple[Record, ...] = ()
    gone: tuple[tuple[Kind, str], ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    first: bool = False


class Versions(Mapping[str, str]):
    """Names and versions. Those of 16 hex digits, as istiod's and ours are, are kept as numbers: half the size, which
    counts with a hundred thousand of them."""

    __slots__ = ("_packed",)

    def __init__(self, versions: Mapping[str, str] = MappingProxyType({})) -> None:
        self._packed: dict[str, str | int] = {}
        if isinstance(versions, Versions):
            self._packed = versions._packed.copy()
        else:
            for name, version in versions.items():
                self.add(name, version)

    def add(self, name: str, version: str) -> None:
        self._packed[name] = _packed(version)

    def take(self, others: Versions) -> None:
        """Add all of `others`, which nobody may use any more."""
        if self._packed:
            self._packed.update(others._packed)
        else:
            self._packed = others._packed

    def drop(self, name: str) -> None:
        """Forget one, if it is there."""
        self._packed.pop(name, None)

    def __getitem__(self, name: str) -> str:
        version = self._packed[name]
        return version if isinstance(version, str) else f"{version:016x}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __repr__(self) -> str:
        return f"Versions({dict(self)!r})"


def _packed(version: str) -> str | int:
    if len(version) == 16:
        try:
            number = int(version, 16)
        except ValueError:
            return version
        if f"{number:016x}" == version:
            return number
    return version


@dataclass(slots=True)
class _News:
    """What responses say, by name; a name is in one of `put`, `gone` and `refused`. `versions`: of what is put.
    `found`: every name and alias of it, for an on-demand client."""

    put: dict[str, Record] = field(default_factory=dict)
    versions: Versions = field(default_factory=Versions)
    gone: dict[str, None] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.put or self.gone or self.refused)

    def has(self, name: str) -> bool:
        return name in self.put or name in self.gone or name in self.refused

    def without(self, later: _News) -> None:
        """Forget what `later` speaks of."""
        for name in (*later.put, *later.gone, *later.refused):
            self.forget(name)

    def forget(self, name: str) -> None:
        """Say nothing of this name."""
        for kind in (self.put, self.gone, self.refused):
            kind.pop(name, None)
        self.versions.drop(name)

    def then(self, later: _News) -> None:
        """Go on with what a later response says."""
        self.without(later)
        self.put.update(later.put)
        self.versions.take(later.versions)
        self.gone.update(later.gone)
        self.refused.update(later.refused)
        self.found += later.found


@dataclass(slots=True)
class _TypeState:
    versions: Versions
    held: _News = field(default_factory=_News)
    stand_ins: set[str] = field(default_factory=set)
    answered: bool = False


class DeltaClient:
    """A subscription to `types`. `versions`: what an earlier process had, as `versions()` gave it.

    `on_request` is called with what has to be sent outside of answers; whoever has a stream open sets it.
    `on_decided` is called when names that were asked for have been answered and acted upon.
    """

    def __init__(
        self,
        node: NodeInfo,
        *,
        types: Iterable[str] = _POLICIES_FIRST,
        versions: Mapping[str, Mapping[str, str]] | None = None,
        lax: bool = False,
        on_demand: bool = False,
    ) -> None:
        known = versions or {}
        self._node = node
        self._lax = lax
        self._demand = Demand() if on_demand else None
        self._types = {url: _TypeState(Versions(known.get(url, {}))) for url in types}
        self._answers: list[tuple[list[str], Mapping[str, None]]] = []
        self.on_request: Callable[[DeltaRequest], None] | None = None
        self.on_decided: Callable[[], None] | None = None

    def versions(self) -> dict[str, Mapping[str, str]]:
        """Names and versions of everything in force now, by type: what a later process passes to continue."""
        return {url: Versions(self._known(state)) for url, state in self._types.items()}

    def _known(self, state: _TypeState) -> Versions:
        if not state.stand_ins:
            return state.versions
        known = Versions(state.versions)
        for name in state.stand_ins:
            known.add(name, STAND_IN_VERSION)
        return known

    @property
    def complete(self) -> bool:
        """Each type that is told without being asked for has had a response that was applied, in this process."""
        return all(state.answered for url, state in self._types.items() if self._demand is None or url != ADDRESS_TYPE)

    @property
    def stand_ins(self) -> int:
        """How many refused resources have a stand-in in force."""
        return sum(len(state.stand_ins) for state in self._types.values())

    @property
    def holding(self) -> bool:
        """The good part of a refused response waits for its bad part to be replaced, or for `release`."""
        return any(state.held.put or state.held.gone for state in self._types.values())

    def open(self) -> list[DeltaRequest]:
        """The first requests of a new stream, one per type (and one with what was asked for and not answered)."""
        requests = []
        for url, state in self._types.items():
            state.held = _News()
            star = ("*",) if self._demand is not None and url == ADDRESS_TYPE else ()
            # No name at all would mean all of them: the star is asked for and given back in one breath.
            requests.append(
                DeltaRequest(
                    type_url=url, node=self._node, subscribe=star, unsubscribe=star, versions=self._known(state)
                )
            )
        if self._demand is not None and self._demand.pending:
            requests.append(DeltaRequest(type_url=ADDRESS_TYPE, subscribe=self._demand.pending))
        return requests

    # --- on demand

    @property
    def on_demand(self) -> bool:
        return self._demand is not None

    def want(self, names: Iterable[str], asker: str = "") -> None:
        """Ask for addresses by name, each once until it is answered. Only for an on-demand client. `asker` is
        held to a share."""
        fresh = self._demand.ask(names, asker) if self._demand is not None else ()
        if fresh and self.on_request is not None:
            self.on_request(DeltaRequest(type_url=ADDRESS_TYPE, subscribe=fresh))

    def decided(self, name: str) -> bool:
        """Nothing more will be heard of `name` by waiting: it was answered lately, or everything is told anyway."""
        return self._demand is None or self._demand.decided(name)

    def acted(self) -> None:
        """The owner has acted on every batch that it was given: only now is what they answer decided."""
        if self._demand is None or not self._answers:
            return
        decided = [self._demand.answered(found, missing.keys()) for found, missing in self._answers]
        self._answers.clear()
        if any(decided) and self.on_decided is not None:
            self.on_decided()

    def age(self) -> tuple[str, ...]:
        """Time has passed (see `xds.demand`); gives the names of which the absence is no longer certain."""
        missing = self._demand.age() if self._demand is not None else ()
        if missing and self.on_request is not None:
            self.on_request(DeltaRequest(type_url=ADDRESS_TYPE, unsubscribe=missing))
        return missing

    # --- responses

    def receive(self, response: DeltaResponse) -> tuple[Batch, DeltaRequest]:
        """Take one response; gives what changes and the answer to send once that is done.

        Raises ProtocolError for a type that was not asked for, or bytes that cannot be read (end the stream then).
        """
        return finish(self.take(response))

    def take(self, response: DeltaResponse) -> Generator[None, None, tuple[Batch, DeltaRequest]]:
        """`receive` in small steps, so that its caller can do other things in between; nothing is changed before the
        last one."""
        state = self._types.get(response.type_url)
        if state is None:
            raise ProtocolError("discovery response", response.type_url, "not a type we asked for")
        news = _News(gone=dict.fromkeys(response.removed))
        bodies: dict[str, bytes] = {}
        for count, resource in enumerate(response.resources, 1):
            self._read(news, response.type_url, resource, bodies)
            if count % SLICE == 0:
                yield
        batch = self._judge(state, response.type_url, news, bodies)
        error = "; ".join(f"{name}: {why}" for name, why in news.refused.items()) if news.refused else None
        return batch, DeltaRequest(type_url=response.type_url, nonce=response.nonce, error=error)

    def release(self) -> list[Batch]:
        """Apply the good part of what is held: the server does not replace the bad part."""
        batches = []
        for url, state in self._types.items():
            if state.held.put or state.held.gone:
                news, state.held = state.held, _News()
                batches.append(self._apply(state, url, news))
        return batches

    def _judge(self, state: _TypeState, type_url: str, news: _News, bodies: Mapping[str, bytes]) -> Batch:
        if news.refused and not self._lax:
            state.held.then(news)
            return Batch(type_url, self._stand_ins(state, type_url, news, bodies), (), dict(news.refused))
        if state.held:
            state.held.without(news)
            if not state.held.refused:
                state.held.then(news)
                refused, news, state.held = news.refused, state.held, _News()
                news.refused = refused
        return self._apply(state, type_url, news)

    def _read(self, news: _News, type_url: str, resource: Resource, bodies: dict[str, bytes]) -> None:
        name = resource.name
        try:
            if news.has(name):
                raise Refusal(name, "is in one response more than once")
            if not name:
                raise Refusal("", "has no name")
            if resource.type_url != type_url:
                raise Refusal(name, f"is a {resource.type_url!r} in a response about {type_url!r}")
            record = decode(type_url, name, resource.body, lax=self._lax)
        except Refusal as refusal:
            news.forget(name)
            news.refused[name] = refusal.why
            bodies[name] = resource.body
            return
        # The record's own text as the key: the same characters are not kept twice.
        name = name_of(record)
        news.put[name] = record
        news.versions.add(name, resource.version)
        if self._demand is not None:
            news.found += (name, *resource.aliases)

    def _apply(self, state: _TypeState, type_url: str, news: _News) -> Batch:
        first, state.answered = not state.answered, True
        state.versions.take(news.versions)
        if state.stand_ins:
            state.stand_ins.difference_update(news.put)
        gone: list[tuple[Kind, str]] = []
        for name in news.gone:
            if name in state.versions or name in state.stand_ins:
                gone += ((kind, name) for kind in _KINDS[type_url])
                state.versions.drop(name)
                state.stand_ins.discard(name)
        if self._demand is not None and type_url == ADDRESS_TYPE:
            self._answers.append((news.found, news.gone))
        return Batch(type_url, tuple(news.put.values()), tuple(gone), dict(news.refused), first)

    def _stand_ins(
        self, state: _TypeState, type_url: str, news: _News, bodies: Mapping[str, bytes]
    ) -> tuple[Record, ...]:
        put: list[Record] = []
        for name, body in bodies.items():
            if name in state.versions:
                continue
            policy = type_url == AUTHORIZATION_TYPE
            stand_in = closed_stand_in(name, body) if policy else closed_address(name, body, news.refused[name])
            if stand_in is not None:
                put.append(stand_in)
                state.stand_ins.add(name)
        return tuple(put)


def lacks(client: DeltaClient, mesh: Mesh, names: Iterable[str], asker: str = "") -> bool:
    """Some of `names` (in the form of `Changes.names`) are not in `mesh` and may come: they have been asked for, and
    `client.on_decided` is called when they are answered. Always False for a client that is told everything."""
    if not client.on_demand:
        return False
    asked = [name.partition(":")[2] for name in names if not mesh.knows(name)]
    client.want(asked, asker)
    return not all(map(client.decided, asked))


def doubtful(missing: Iterable[str]) -> frozenset[str]:
    """What `age` gave, in the form of `Changes.names`: a name on the wire does not say what it would be."""
    return frozenset(f"{kind}:{name}" for name in missing for kind in ("address", "service", "workload"))
