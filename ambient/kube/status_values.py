"""What is said in the status of Gateways and their routes beside conditions of the whole, and how it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ambient.kube.networking import TypedAddress
from ambient.kube.records import Condition
from ambient.kube.routing import CONTROLLER, GATEWAY_CONTROLLER

_GROUP: Final = "gateway.networking.k8s.io"
_MOST_ANCESTORS: Final = 16
Written = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ListenerStatus:
    """`kinds`: of routes that it takes; `attached`: how many it has."""

    name: str
    kinds: tuple[str, ...]
    attached: int
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class ParentStatus:
    """`ref`: the parentRef as the route has it."""

    ref: Mapping[str, Any]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AncestorStatus:
    """Of a policy, for one of the Gateways that it concerns; `controller` answers for that."""

    ref: Mapping[str, Any]
    controller: str
    conditions: tuple[Condition, ...]


def timed(conditions: Iterable[Condition], before: Iterable[Any], generation: int, now: str) -> Written:
    """As they stand in a status; the time of transition is kept where the status stays as it was. `generation`: that of
    the object we speak about, 0 when it has none."""
    known = {entry.get("type"): entry for entry in before if isinstance(entry, Mapping)}
    found = []
    for condition in conditions:
        old = known.get(condition.type, {})
        entry: dict[str, Any] = {
            "type": condition.type,
            "status": condition.status,
            "reason": condition.reason or "Unknown",
            "message": condition.message,
            "lastTransitionTime": old.get("lastTransitionTime", now) if old.get("status") == condition.status else now,
        }
        if generation:
            entry["observedGeneration"] = generation
        found.append(entry)
    return found


def listeners_written(said: Sequence[ListenerStatus], before: Iterable[Any], generation: int, now: str) -> Written:
    """status.listeners of a Gateway."""
    known = {entry.get("name"): entry.get("conditions") for entry in before if isinstance(entry, Mapping)}
    return [
        {
            "name": one.name,
            "supportedKinds": [{"group": _GROUP, "kind": kind} for kind in one.kinds],
            "attachedRoutes": one.attached,
            "conditions": timed(one.conditions, known.get(one.name) or [], generation, now),
        }
        for one in said
    ]


def addresses_written(addresses: Iterable[TypedAddress]) -> Written:
    """status.addresses of a Gateway."""
    return [{"type": one.type, "value": one.value} for one in addresses]


def parents_written(said: Sequence[ParentStatus], before: Iterable[Any], generation: int, now: str) -> Written:
    """status.parents of a route: what others say as it is, and ours of gateways."""
    listed = [dict(one) for one in before if isinstance(one, Mapping)]
    known = {_same(one.get("parentRef")): one.get("conditions") for one in listed if _ours(one)}
    ours = [
        {
            "parentRef": dict(one.ref),
            "controllerName": GATEWAY_CONTROLLER,
            "conditions": timed(one.conditions, known.get(_same(one.ref)) or [], generation, now),
        }
        for one in said
    ]
    return [one for one in listed if not _ours(one)] + ours


def ancestors_written(said: Sequence[AncestorStatus], before: Iterable[Any], generation: int, now: str) -> Written:
    """status.ancestors of a policy: what others say as it is, and ours of gateways and waypoints; as many as there may
    be."""
    listed = [dict(one) for one in before if isinstance(one, Mapping)]
    mine = [one for one in listed if one.get("controllerName") in (CONTROLLER, GATEWAY_CONTROLLER)]
    known = {_same(one.get("ancestorRef")): one.get("conditions") for one in mine}
    ours = [
        {
            "ancestorRef": dict(one.ref),
            "controllerName": one.controller,
            "conditions": timed(one.conditions, known.get(_same(one.ref)) or [], generation, now),
        }
        for one in said
    ]
    return ([one for one in listed if one not in mine] + ours)[:_MOST_ANCESTORS]


def _ours(entry: Mapping[str, Any]) -> bool:
    return entry.get("controllerName") == GATEWAY_CONTROLLER


def _same(ref: object) -> str:
    return str(sorted(ref.items())) if isinstance(ref, Mapping) else ""
