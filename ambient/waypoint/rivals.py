"""Whose a name is that several services behind one waypoint claim. Pure.

Envoy refuses a whole table of routes for one name that is in it twice, and with that every later policy in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ambient.waypoint.front import Front


def holder(claims: Sequence[Front]) -> Front | None:
    """The one that a name leads to: of the lowest rank, of one namespace's the first. None where namespaces of equal
    rank dispute it: which of them a caller means cannot be told, so it is refused."""
    best = min(one.rank for one in claims)
    rivals = [one for one in claims if one.rank == best]
    return rivals[0] if len({one.namespace for one in rivals}) == 1 else None


def rightful(fronts: Sequence[Front], beyond: Iterable[Front]) -> list[Front]:
    """Those of `fronts` that have their host name for themselves: resources are called by it."""
    claims: dict[str, list[Front]] = {}
    for front in (*fronts, *beyond):
        claims.setdefault(front.hostname, []).append(front)
    held = {hostname: one.namespace for hostname, found in claims.items() if (one := holder(found)) is not None}
    return [front for front in fronts if held.get(front.hostname) == front.namespace]
