"""Which endpoints a proxy prefers by where it is itself: priorities, and shares of localities. Pure.

No endpoint is ever left out: what is not preferred comes after all that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ambient.kube.traffic_values import Spread
from ambient.model.workload import Locality, Scope
from ambient.waypoint.front import Backend, FrontPort, Place, View

_ALL: Final = ("region", "zone", "subzone")
_SCOPES: Final = {Scope.REGION: "region", Scope.ZONE: "zone", Scope.SUBZONE: "subzone", Scope.NODE: "node"}


@dataclass(frozen=True, slots=True)
class Group:
    """`priority` 0 is asked first, the next where too few of that are healthy. `share`: of the requests of its
    priority, 0: by the weights of its endpoints alone."""

    backends: tuple[Backend, ...]
    priority: int = 0
    share: int = 0


def depends(view: View) -> bool:
    """Whether anything is preferred at all."""
    every = (*view.fronts, *view.beyond, *view.asked)
    return any(_preferring(port) for front in every for port in front.ports)


def _preferring(port: FrontPort) -> bool:
    spreads = [port.traffic.balancer, *(one.traffic.balancer for one in port.subsets)]
    return bool(port.near) or any(one is not None and one.spread is not None for one in spreads)


def groups(
    backends: Sequence[Backend], near: Sequence[Scope], spread: Spread | None, place: Place | None
) -> list[Group]:
    """In the order of their priorities, which have no holes. What a DestinationRule says goes before what the service
    says (`near`: what should be equal, the most important first)."""
    # Where localities have shares at all, one without gets nothing.
    shared = spread is not None and spread.enabled and bool(spread.distribute)
    whole = [Group(tuple(backends), 0, int(shared))]
    if place is None or not backends:
        return whole
    if spread is None:
        scopes = [_SCOPES[one] for one in near if one in _SCOPES]
        return _ranked(backends, lambda one: len(scopes) - _agreeing(one, place, scopes)) if scopes else whole
    if not spread.enabled:
        return whole
    if spread.distribute:
        shares = next((to for here, to in spread.distribute if _within(place.locality, here)), None)
        return _shared(backends, shares) if shares is not None else whole
    if spread.priority:
        return _ranked(backends, lambda one: len(spread.priority) - _agreeing(one, place, spread.priority))
    away = {there for here, there in spread.failover if here == place.locality.region}

    def distance(one: Backend) -> int:
        agreeing = _agreeing(one, place, _ALL)
        # Of other regions the one that is named goes before the others.
        return len(_ALL) - agreeing + (1 if not agreeing and away and one.locality.region not in away else 0)

    return _ranked(backends, distance)


def _agreeing(one: Backend, place: Place, names: Iterable[str]) -> int:
    """How many are equal from the start."""
    found = 0
    for name in names:
        there = one.node if name == "node" else getattr(one.locality, name)
        here = place.node if name == "node" else getattr(place.locality, name)
        if there != here:
            break
        found += 1
    return found


def _ranked(backends: Iterable[Backend], distance: Callable[[Backend], int]) -> list[Group]:
    by_distance: dict[int, list[Backend]] = {}
    for one in backends:
        by_distance.setdefault(distance(one), []).append(one)
    return [Group(tuple(found), number) for number, (_, found) in enumerate(sorted(by_distance.items()))]


def _shared(backends: Iterable[Backend], shares: Sequence[tuple[str, int]]) -> list[Group]:
    """The most exact locality that an endpoint is in counts; who is in none comes last."""
    exact = sorted(shares, key=lambda one: (one[0] == "*", -one[0].count("/"), one[0].endswith("*")))
    found: dict[str, list[Backend]] = {where: [] for where, _ in shares}
    rest: list[Backend] = []
    for one in backends:
        where = next((where for where, _ in exact if _within(one.locality, where)), None)
        (rest if where is None else found[where]).append(one)
    made = [Group(tuple(found[where]), 0, share) for where, share in shares if found[where]]
    return [*made, Group(tuple(rest), 1 if made else 0, 1)] if rest else made


def _within(locality: Locality, where: str) -> bool:
    own = (locality.region, locality.zone, locality.subzone)
    return all(part in ("*", name) for part, name in zip(where.split("/"), own, strict=False))
