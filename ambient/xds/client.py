"""The client side of delta discovery as a state machine: responses in, changes and the answer out; no I/O, no clock.

What a refused response does (stricter than Istio's ztunnel, which applies the good part of it):
- nothing of it is applied; the last good version of everything stays; the answer (NACK) names each refused resource;
- it is held: when later responses have replaced every refused resource of it, the rest is applied after all (a server
  that resends the good part at once, as ours does, comes earlier);
- a refused policy of which there is no good version is replaced by one that denies everything it selects.
With `lax` (compat: istio) the good part is applied at once and refused policies are simply absent.

State survives streams: `open` announces what we have, the server sends only what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ambient.errors import ProtocolError
from ambient.model.mesh import Kind
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, TYPES, Record, Refusal, Resource, decode
from ambient.xds.messages import DeltaRequest, DeltaResponse, NodeInfo
from ambient.xds.policies import closed_stand_in

_STAND_IN_VERSION = "refused"
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
    octets: int = 0
    """Size of the resources as they came."""


@dataclass(frozen=True, slots=True)
class _Accepted:
    version: str
    record: Record


_Change = _Accepted | Refusal | None
"""What a response says about one name; None: removed."""


@dataclass(slots=True)
class _TypeState:
    versions: dict[str, str]
    held: dict[str, _Change] = field(default_factory=dict)
    stand_ins: set[str] = field(default_factory=set)
    answered: bool = False


class DeltaClient:
    """Wildcard subscription to `types`. `versions`: what an earlier process had, as `versions()` gave it."""

    def __init__(
        self,
        node: NodeInfo,
        *,
        types: Iterable[str] = TYPES,
        versions: Mapping[str, Mapping[str, str]] | None = None,
        lax: bool = False,
    ) -> None:
        known = versions or {}
        self._node = node
        self._lax = lax
        self._types = {url: _TypeState(dict(known.get(url, {}))) for url in types}

    def versions(self) -> dict[str, dict[str, str]]:
        """Names and versions of everything in force, by type: what a later process passes to continue."""
        return {
            url: {**state.versions, **dict.fromkeys(state.stand_ins, _STAND_IN_VERSION)}
            for url, state in self._types.items()
        }

    @property
    def complete(self) -> bool:
        """Each type has had a response that was applied, in this process."""
        return all(state.answered for state in self._types.values())

    def open(self) -> list[DeltaRequest]:
        """The first requests of a new stream, one per type."""
        for state in self._types.values():
            state.held.clear()
        known = self.versions()
        return [DeltaRequest(type_url=url, node=self._node, versions=known[url]) for url in self._types]

    def receive(self, response: DeltaResponse) -> tuple[Batch, DeltaRequest]:
        """Take one response; gives what changes and the answer to send once that is done.

        Raises ProtocolError for a type that was not asked for (end the stream then).
        """
        state = self._types.get(response.type_url)
        if state is None:
            raise ProtocolError("discovery response", response.type_url, "not a type we asked for")
        changes = self._read(response)
        refused = {name: change.why for name, change in changes.items() if isinstance(change, Refusal)}
        if refused and not self._lax:
            state.held.update(changes)
            batch = Batch(response.type_url, self._stand_ins(state, response, refused), (), refused)
        else:
            state.held = {name: change for name, change in state.held.items() if name not in changes}
            if state.held and not any(isinstance(change, Refusal) for change in state.held.values()):
                changes = {**state.held, **changes}
                state.held = {}
            batch = self._apply(state, response.type_url, changes, refused)
        error = "; ".join(f"{name}: {why}" for name, why in refused.items()) if refused else None
        batch = replace(batch, octets=sum(len(resource.body) for resource in response.resources))
        return batch, DeltaRequest(type_url=response.type_url, nonce=response.nonce, error=error)

    def _read(self, response: DeltaResponse) -> dict[str, _Change]:
        changes: dict[str, _Change] = dict.fromkeys(response.removed)
        for resource in response.resources:
            if resource.name in changes:
                changes[resource.name] = Refusal(resource.name, "is in one response more than once")
            else:
                changes[resource.name] = self._decode(response.type_url, resource)
        return changes

    def _decode(self, type_url: str, resource: Resource) -> _Change:
        try:
            if not resource.name:
                raise Refusal("", "has no name")
            if resource.type_url != type_url:
                raise Refusal(resource.name, f"is a {resource.type_url!r} in a response about {type_url!r}")
            return _Accepted(resource.version, decode(type_url, resource.name, resource.body, lax=self._lax))
        except Refusal as refusal:
            return refusal

    def _apply(
        self, state: _TypeState, type_url: str, changes: Mapping[str, _Change], refused: Mapping[str, str]
    ) -> Batch:
        first, state.answered = not state.answered, True
        put: list[Record] = []
        gone: list[tuple[Kind, str]] = []
        for name, change in changes.items():
            if isinstance(change, _Accepted):
                put.append(change.record)
                state.versions[name] = change.version
                state.stand_ins.discard(name)
            elif change is None and (name in state.versions or name in state.stand_ins):
                gone += ((kind, name) for kind in _KINDS[type_url])
                state.versions.pop(name, None)
                state.stand_ins.discard(name)
        return Batch(type_url, tuple(put), tuple(gone), refused, first)

    def _stand_ins(self, state: _TypeState, response: DeltaResponse, refused: Mapping[str, str]) -> tuple[Record, ...]:
        if response.type_url != AUTHORIZATION_TYPE:
            return ()
        put: list[Record] = []
        for resource in response.resources:
            if resource.name in refused and resource.name not in state.versions:
                stand_in = closed_stand_in(resource.name, resource.body)
                if stand_in is not None:
                    put.append(stand_in)
                    state.stand_ins.add(resource.name)
        return tuple(put)
