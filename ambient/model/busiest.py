"""A mapping that holds what is most used, and one value per kind for all the rest together. Pure.

What a key counted before it got a line of its own stays with the rest, and a line that is given up ends: nothing is
counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from heapq import nlargest
from typing import Final, Generic, TypeVar

Key = tuple[str, ...]
Value = TypeVar("Value")

_TIMES_BUSIER: Final = 2.0
"""A key takes another's line only when it is this much busier, so that two of about the same do not take turns."""
_DECAY: Final = 0.5
_WAITING_PER_LINE: Final = 4


class Busiest(Generic[Value]):
    """At most `limit` lines, and one for each value of `rest`: the key of all those that there is no room for."""

    def __init__(self, limit: int, make: Callable[[Key], Value], rest: Callable[[Key], Key]) -> None:
        self._limit = limit
        self._make = make
        self._rest_of = rest
        self._lines: dict[Key, Value] = {}
        self._weights: dict[Key, float] = {}
        self._rest: dict[Key, Value] = {}
        self._waiting: dict[Key, float] = {}
        self.overflowed = 0
        """Uses that had to go to the rest."""

    def at(self, key: Key, weight: float = 1) -> Value:
        """The line of a key, or that of the rest; this counts as a use, or as so many."""
        line = self._lines.get(key)
        if line is not None:
            self._weights[key] += weight
            return line
        if len(self._lines) < self._limit:
            line = self._lines[key] = self._make(key)
            self._weights[key] = weight
            return line
        self.overflowed += 1
        self._waiting[key] = self._waiting.get(key, 0) + weight
        if len(self._waiting) > _WAITING_PER_LINE * self._limit:
            self._waiting = dict(nlargest(2 * self._limit, self._waiting.items(), key=lambda item: item[1]))
        return self.rest(self._rest_of(key))

    def rest(self, key: Key) -> Value:
        """The line of all those of this kind that have none."""
        if key not in self._rest:
            self._rest[key] = self._make(key)
        return self._rest[key]

    def rank(self) -> None:
        """Give the lines of quiet keys to busier ones that have none; from time to time."""
        quiet = sorted((weight, key) for key, weight in self._weights.items())
        busy = sorted(((weight, key) for key, weight in self._waiting.items()), reverse=True)
        for (weight, key), (least, loser) in zip(busy, quiet, strict=False):
            if weight <= least * _TIMES_BUSIER:
                break
            del self._lines[loser], self._weights[loser]
            self._lines[key] = self._make(key)
            self._weights[key] = weight
        self._waiting.clear()
        for key in self._weights:
            self._weights[key] *= _DECAY

    def items(self) -> Mapping[Key, Value]:
        """Every line, those of the rest behind the others."""
        return {**self._lines, **self._rest}

    def values(self) -> Iterator[Value]:
        yield from self._lines.values()
        yield from self._rest.values()
