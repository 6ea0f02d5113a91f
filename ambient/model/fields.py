"""Typed reading of one JSON object of a dump; every complaint names the place and the value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ambient.errors import InvalidInput

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fields:
    """An object and where it stands. All methods raise InvalidInput; a missing key gives the default, if any."""

    raw: Any
    where: str

    def __post_init__(self) -> None:
        if not isinstance(self.raw, Mapping):
            raise InvalidInput("not an object", self.where, repr(self.raw)[:80])

    def text(self, key: str, default: str | None = None) -> str:
        value = self.raw.get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "text")
        return value

    def number(self, key: str, default: int) -> int:
        """Null counts as missing."""
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, value, "a number")
        return value

    def boolean(self, key: str) -> bool:
        value = self.raw.get(key, False)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.raw.get(key) or []
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self._wrong(key, value, "a list of texts")
        return tuple(value)

    def numbers(self, key: str) -> tuple[int, ...]:
        value = self.raw.get(key) or []
        if not isinstance(value, list) or not all(isinstance(entry, int) for entry in value):
            raise self._wrong(key, value, "a list of numbers")
        return tuple(value)

    def choice(self, key: str, choices: Mapping[str, T], default: str | None = None) -> T:
        value = self.raw.get(key, default)
        if not isinstance(value, str) or value not in choices:
            raise self._wrong(key, value, f"one of {', '.join(choices)}")
        return choices[value]

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.raw.get(key) or {}
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "an object")
        return value

    def nested(self, key: str) -> Fields | None:
        value = self.raw.get(key)
        return None if value is None else Fields(value, f"{self.where}.{key}")

    def each(self, key: str) -> tuple[Fields, ...]:
        value = self.raw.get(key) or []
        if not isinstance(value, list):
            raise self._wrong(key, value, "a list")
        return tuple(Fields(entry, f"{self.where}.{key}[{n}]") for n, entry in enumerate(value))

    def _wrong(self, key: str, value: object, expected: str) -> InvalidInput:
        return InvalidInput(f"{key} is not {expected}", self.where, repr(value)[:80])
