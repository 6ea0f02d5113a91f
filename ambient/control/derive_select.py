"""Who selects whom by labels, found without trying them all, in both directions. Pure.

`ByLabel` holds selectors and answers for a labelled thing; `Labelled` holds labelled things and answers for a selector.
Both can be changed piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_Place = tuple[str, str, str]


class ByLabel:
    """Named selectors of namespaces. A selector without labels selects everything in its namespace."""

    __slots__ = ("_everything", "_labelled")

    def __init__(self) -> None:
        self._labelled: dict[_Place, dict[str, Mapping[str, str]]] = {}
        self._everything: dict[str, dict[str, None]] = {}

    def add(self, namespace: str, selector: Mapping[str, str], name: str) -> None:
        if not selector:
            self._everything.setdefault(namespace, {})[name] = None
            return
        label, value = min(selector.items())
        self._labelled.setdefault((namespace, label, value), {})[name] = selector

    def discard(self, namespace: str, selector: Mapping[str, str], name: str) -> None:
        """Take back what `add` was given."""
        if not selector:
            self._everything.get(namespace, {}).pop(name, None)
            return
        place = (namespace, *min(selector.items()))
        held = self._labelled.get(place, {})
        held.pop(name, None)
        if not held:
            self._labelled.pop(place, None)

    def names(self, namespace: str, labels: Mapping[str, str]) -> Iterator[str]:
        """Names of the selectors of the namespace that fit the labels, in no particular order."""
        yield from self._everything.get(namespace, ())
        if not self._labelled:
            return
        for label, value in labels.items():
            for name, selector in self._labelled.get((namespace, label, value), {}).items():
                if selector.items() <= labels.items():
                    yield name


class Labelled:
    """Named things with labels, by namespace."""

    __slots__ = ("_all", "_labels", "_places")

    def __init__(self) -> None:
        self._labels: dict[str, tuple[str, Mapping[str, str]]] = {}
        self._all: dict[str, set[str]] = {}
        self._places: dict[tuple[str, str], dict[str, set[str]]] = {}

    def put(self, namespace: str, labels: Mapping[str, str], name: str) -> None:
        """New, or in the place of what had this name."""
        self.discard(name)
        self._labels[name] = (namespace, labels)
        self._all.setdefault(namespace, set()).add(name)
        for place in labels.items():
            self._places.setdefault(place, {}).setdefault(namespace, set()).add(name)

    def discard(self, name: str) -> None:
        namespace, labels = self._labels.pop(name, ("", {}))
        everything = self._all.get(namespace)
        if everything is None:
            return
        everything.discard(name)
        if not everything:
            del self._all[namespace]
        for place in labels.items():
            spaces = self._places[place]
            spaces[namespace].discard(name)
            if not spaces[namespace]:
                del spaces[namespace]
                if not spaces:
                    del self._places[place]

    def selected(self, namespace: str | None, selector: Mapping[str, str]) -> set[str]:
        """Names of what the selector fits in a namespace, None: in all of them."""
        if not selector:
            spaces = self._all.values() if namespace is None else (self._all.get(namespace, set()),)
            return {name for space in spaces for name in space}
        found = [self._places.get(place, {}) for place in selector.items()]
        fewest = min(found, key=lambda spaces: sum(len(names) for names in spaces.values()))
        chosen = fewest.values() if namespace is None else (fewest.get(namespace, set()),)
        wanted = selector.items()
        return {name for names in chosen for name in names if wanted <= self._labels[name][1].items()}
