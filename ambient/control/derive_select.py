"""Label selectors indexed by one of their labels: who selects a pod is found without trying them all. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class ByLabel:
    """Named selectors of namespaces. A selector without labels selects everything in its namespace."""

    __slots__ = ("_everything", "_labelled")

    def __init__(self) -> None:
        self._labelled: dict[tuple[str, str, str], list[tuple[Mapping[str, str], str]]] = {}
        self._everything: dict[str, list[str]] = {}

    def add(self, namespace: str, selector: Mapping[str, str], name: str) -> None:
        if not selector:
            self._everything.setdefault(namespace, []).append(name)
            return
        label, value = min(selector.items())
        self._labelled.setdefault((namespace, label, value), []).append((selector, name))

    def names(self, namespace: str, labels: Mapping[str, str]) -> Iterator[str]:
        """Names of the selectors of the namespace that fit the labels, in no particular order."""
        yield from self._everything.get(namespace, ())
        for label, value in labels.items():
            for selector, name in self._labelled.get((namespace, label, value), ()):
                if selector.items() <= labels.items():
                    yield name
