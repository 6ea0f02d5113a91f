"""What proxies of one waypoint are told of endpoints by where they are: a catalogue for each node, where that counts.

Where it does not, all have the same one; a proxy that has that when it begins to count is asked to come again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ambient.waypoint.front import Place, View
from ambient.waypoint.near import depends
from ambient.waypoint.resources import ENVOY_TYPES, Made, resources
from ambient.waypoint.typed import ENDPOINT_TYPE, Message
from ambient.waypoint.wire import encode
from ambient.xds.catalogue import Catalogue
from ambient.xds.codec import Resource

MOST: Final = 64
"""Nodes with a catalogue of their own at a time: beyond that proxies are told the same wherever they are."""

Encoded = Mapping[tuple[str, str], tuple[Message, Resource]]
"""Content and bytes of each resource, by type and name."""


@dataclass(slots=True)
class _Place:
    place: Place
    catalogue: Catalogue = field(default_factory=lambda: Catalogue(types=ENVOY_TYPES))
    made: Made = field(default_factory=Made)
    own: dict[tuple[str, str], tuple[Message, Resource]] = field(default_factory=dict)


class Places:
    """Of one waypoint: `begin` and `update` with every view, `at` for every proxy, `keep` when one has gone."""

    def __init__(self) -> None:
        self._view: View | None = None
        self._counts = False
        self._by_node: dict[str, _Place] = {}

    def begin(self, view: View) -> bool:
        """Take the view; whether it is the first where it counts where a proxy is."""
        counts, before = depends(view), self._counts
        self._view, self._counts = view, counts
        return counts and not before

    def update(self, shared: Encoded, revision: int) -> bool:
        """`shared`: what is told wherever a proxy is. Whether there is something new."""
        return any([self._fill(one, shared, revision) for one in self._by_node.values()])

    def confirm(self, revision: int) -> None:
        """Nothing has changed."""
        for one in self._by_node.values():
            one.catalogue.change((), {}, revision)

    def at(self, place: Place, shared: Encoded, revision: int) -> Catalogue | None:
        """For a proxy that is there; None: the same as for all."""
        if not self._counts or (place.node not in self._by_node and len(self._by_node) >= MOST):
            return None
        found = self._by_node.setdefault(place.node, _Place(place))
        if found.place != place or not found.catalogue.filled:
            found.place = place
            self._fill(found, shared, revision)
        return found.catalogue

    def keep(self, nodes: Collection[str]) -> None:
        """There are proxies on these nodes alone: the places of others are for who comes."""
        self._by_node = {node: one for node, one in self._by_node.items() if node in nodes}

    def _fill(self, one: _Place, shared: Encoded, revision: int) -> bool:
        own: dict[tuple[str, str], tuple[Message, Resource]] = {}
        if self._view is not None and self._counts:
            for url, name, content in resources(replace(self._view, place=one.place), made=one.made):
                if url != ENDPOINT_TYPE or (url, name) not in shared or shared[url, name][0] == content:
                    continue
                before = one.own.get((url, name))
                same = before is not None and before[0] == content
                own[url, name] = before if before is not None and same else (content, encode(url, name, content))
        one.own = own
        told = (own.get(key, value)[1] for key, value in shared.items())
        return bool(one.catalogue.update(told, revision))
