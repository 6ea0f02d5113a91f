"""Everything a discovery server has to give, with a memory of what changed when. Pure.

Each `update` that changes something makes a new generation; streams remember the generation they are at, so that a
push costs as much as what changed, whatever the size of the mesh and the number of streams. Names of removed resources
are remembered too (MOST_TOMBSTONES of them); a stream older than that has to start again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from ambient.errors import Unavailable
from ambient.xds.codec import TYPES, Held, Resource, encode, name_of, type_of
from ambient.xds.steps import finish

MOST_TOMBSTONES: Final = 100_000
SLICE: Final = 50
"""Resources encoded in one go: a few milliseconds."""


class _Shelf:
    """The resources of one type."""

    def __init__(self) -> None:
        self.records: dict[str, Held] = {}
        self.resources: dict[str, Resource] = {}
        self.aliases: dict[str, set[str]] = {}
        self.groups: dict[str, set[str]] = {}
        self.changed: dict[str, int] = {}
        self.horizon = 0

    def put(self, name: str, record: Held, resource: Resource, generation: int) -> None:
        self.drop(name, generation)
        self.records[name] = record
        self.resources[name] = resource
        for alias in resource.aliases:
            self.aliases.setdefault(alias, set()).add(name)
        for group in resource.groups:
            self.groups.setdefault(group, set()).add(name)

    def drop(self, name: str, generation: int) -> None:
        self.changed.pop(name, None)
        self.changed[name] = generation
        self.records.pop(name, None)
        old = self.resources.pop(name, None)
        if old is None:
            return
        for index, keys in ((self.aliases, old.aliases), (self.groups, old.groups)):
            for key in keys:
                index[key].discard(name)
                if not index[key]:
                    del index[key]

    def forget_old_tombstones(self, most: int) -> None:
        surplus = len(self.changed) - len(self.resources) - most
        if surplus <= 0:
            return
        for name in [name for name in self.changed if name not in self.resources][:surplus]:
            self.horizon = max(self.horizon, self.changed.pop(name))


class Catalogue:
    """`revision`: of the source that the last update was derived from. `generation` grows when something changes.

    `filled` is False until the first update: nothing is known yet, which is not the same as that there is nothing.
    """

    def __init__(self, *, most_tombstones: int = MOST_TOMBSTONES, types: Iterable[str] = TYPES) -> None:
        self.revision = 0
        self.generation = 0
        self.filled = False
        self._most_tombstones = most_tombstones
        self._shelves = {url: _Shelf() for url in types}

    def update(self, records: Iterable[Held], revision: int) -> int:
        """Make `records` all there is; gives how many resources were put or removed. Encodes only what differs."""
        return finish(self.updating(records, revision))

    def updating(self, records: Iterable[Held], revision: int) -> Generator[None, None, int]:
        """`update` in small steps, so that its caller can do other things in between; nothing is changed before the
        last one."""
        present: dict[str, set[str]] = {url: set() for url in self._shelves}
        put = []
        for record in records:
            url, name = type_of(record), name_of(record)
            present[url].add(name)
            old = self._shelves[url].records.get(name)
            if old is not record and old != record:
                put.append(record)
        gone = {url: [n for n in shelf.resources if n not in present[url]] for url, shelf in self._shelves.items()}
        made = []
        for count, record in enumerate(put, 1):
            made.append((record, encode(record)))
            if count % SLICE == 0:
                yield
        return self._change(made, gone, revision)

    def change(self, put: Iterable[Held], gone: Mapping[str, Iterable[str]], revision: int) -> int:
        """Put these and remove those (names by type; what is not there is no matter); gives how many it was.

        Costs as much as it is given, whatever the size of the mesh.
        """
        return self._change(((record, encode(record)) for record in put), gone, revision)

    def _change(self, put: Iterable[tuple[Held, Resource]], gone: Mapping[str, Iterable[str]], revision: int) -> int:
        generation = self.generation + 1
        changes = 0
        for record, resource in put:
            self._shelves[type_of(record)].put(name_of(record), record, resource, generation)
            changes += 1
        for url, names in gone.items():
            shelf = self._shelves[url]
            for name in names:
                if name in shelf.resources:
                    shelf.drop(name, generation)
                    changes += 1
        for shelf in self._shelves.values():
            shelf.forget_old_tombstones(self._most_tombstones)
        if changes:
            self.generation = generation
        self.revision = revision
        self.filled = True
        return changes

    def serves(self, type_url: str) -> bool:
        return type_url in self._shelves

    def resources(self, type_url: str) -> Mapping[str, Resource]:
        """Every resource of a type by name; a live view."""
        return MappingProxyType(self._shelves[type_url].resources)

    def records(self, type_url: str) -> Mapping[str, Held]:
        """Every record of a type by name; a live view."""
        return MappingProxyType(self._shelves[type_url].records)

    def find(self, type_url: str, asked: str) -> frozenset[str]:
        """Names of the resources that `asked`, a name or an alias, stands for; empty when there is none."""
        shelf = self._shelves[type_url]
        return frozenset((asked,)) if asked in shelf.resources else frozenset(shelf.aliases.get(asked, ()))

    def group(self, type_url: str, group: str) -> frozenset[str]:
        return frozenset(self._shelves[type_url].groups.get(group, ()))

    def changed_since(self, type_url: str, generation: int) -> Iterator[str]:
        """Names put or removed after `generation`; raises Unavailable when that is too long ago to know."""
        shelf = self._shelves[type_url]
        if generation < shelf.horizon:
            raise Unavailable("changes", type_url, "too many were removed since the client's last answer")
        for name in reversed(shelf.changed):
            if shelf.changed[name] <= generation:
                return
            yield name
