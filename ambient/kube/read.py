"""A cursor over one decoded document: every access checks the type and knows the path it is at.

Nothing here knows Kubernetes; it only turns "this is not what was expected" into InvalidInput that names the
document (`what`), the field path (`where`) and the reason (`why`). JSON null counts as absent, as in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ambient.errors import InvalidInput

T = TypeVar("T")

_TYPE_NAMES = {str: "a string", bool: "a boolean", int: "an integer", float: "a number", list: "a list"}


def _shown(value: object) -> str:
    name = _TYPE_NAMES.get(type(value), "a mapping" if isinstance(value, Mapping) else "nothing")
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    if isinstance(value, int | float | str):
        return f"{name} ({str(value)[:60]!r})" if isinstance(value, str) else f"the number {value}"
    return name


def _is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON can spell and nothing can write."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


@dataclass(frozen=True, slots=True)
class Field:
    """One value and where it stands. `observed`: it comes from a live API server that may be newer than we are, so
    unknown keys are passed over instead of refused."""

    value: Any
    path: str
    what: str
    observed: bool = False

    def refuse(self, why: str) -> InvalidInput:
        """The error to raise for this field."""
        return InvalidInput(self.what, self.path, why)

    def text(self) -> str:
        if not isinstance(self.value, str):
            quote = " (quote it)" if isinstance(self.value, bool | int | float) else ""
            raise self.refuse(f"expected a string, found {_shown(self.value)}{quote}")
        if "\x00" in self.value:
            raise self.refuse("a string may not hold NUL")
        if not self.value.isascii() and not _is_unicode(self.value):
            raise self.refuse("not valid Unicode")
        return self.value

    def one_of(self, choices: Collection[str]) -> str:
        value = self.text()
        if value not in choices:
            raise self.refuse(f"{value!r} is not one of {', '.join(choices)}")
        return value

    def checked(self, check: Callable[[str], str]) -> str:
        """The string, refused when `check` returns a complaint ("" = fine)."""
        value = self.text()
        complaint = check(value)
        if complaint:
            raise self.refuse(complaint)
        return value

    def integer(self, low: int, high: int, name: str = "") -> int:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(f"expected an integer, found {_shown(value)}")
        if not low <= value <= high:
            raise self.refuse(f"{value} is not {name or 'in range'} ({low}..{high})")
        return value

    def port(self) -> int:
        return self.integer(1, 65535, "a port")

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.refuse(f"expected true or false, found {_shown(self.value)}")
        return self.value

    def items(self) -> list[Field]:
        if not isinstance(self.value, list | tuple):
            raise self.refuse(f"expected a list, found {_shown(self.value)}")
        return [Field(item, f"{self.path}[{i}]", self.what, self.observed) for i, item in enumerate(self.value)]

    def texts(self) -> tuple[str, ...]:
        return tuple(item.text() for item in self.items())

    def mapping(self) -> Mapping[str, Any]:
        if not isinstance(self.value, Mapping):
            raise self.refuse(f"expected a mapping, found {_shown(self.value)}")
        for key in self.value:
            if not isinstance(key, str):
                raise self.refuse(f"the key {key!r} is not a string (quote it)")
            if not key.isascii() and not _is_unicode(key):
                raise self.refuse(f"the key {key!a} is not valid Unicode")
        return self.value

    def text_map(self, check: Callable[[str, str], str] | None = None) -> dict[str, str]:
        """A mapping of strings to strings; `check(key, value)` returns a complaint or ""."""
        result = {}
        for key, value in self.mapping().items():
            field = Field(value, f"{self.path}[{key}]", self.what)
            result[key] = field.text()
            complaint = check(key, result[key]) if check else ""
            if complaint:
                raise field.refuse(complaint)
        return result

    def object(self, known: Collection[str]) -> Object:
        """A mapping whose keys are all in `known`; any other key is refused by name."""
        for key in self.mapping():
            if key not in known and not self.observed:
                raise Field(None, f"{self.path}.{key}" if self.path else key, self.what).refuse("unknown field")
        return Object(self)

    def open_object(self) -> Object:
        """A mapping of which only some keys interest us; the others are somebody else's."""
        self.mapping()
        return Object(self)


@dataclass(frozen=True, slots=True)
class Object:
    """A mapping under the cursor. The short readers return the default when the key is absent or null."""

    at: Field

    def get(self, key: str) -> Field | None:
        value = self.at.value.get(key)
        path = f"{self.at.path}.{key}" if self.at.path else key
        return None if value is None else Field(value, path, self.at.what, self.at.observed)

    def need(self, key: str) -> Field:
        field = self.get(key)
        if field is None:
            raise Field(None, f"{self.at.path}.{key}" if self.at.path else key, self.at.what).refuse("is required")
        return field

    def read(self, key: str, reader: Callable[[Field], T], default: T) -> T:
        field = self.get(key)
        return default if field is None else reader(field)

    def each(self, key: str, reader: Callable[[Field], T]) -> tuple[T, ...]:
        field = self.get(key)
        return () if field is None else tuple(reader(item) for item in field.items())

    def text(self, key: str, default: str = "") -> str:
        return self.read(key, Field.text, default)

    def texts(self, key: str) -> tuple[str, ...]:
        return self.read(key, Field.texts, ())

    def text_map(self, key: str, check: Callable[[str, str], str] | None = None) -> dict[str, str]:
        field = self.get(key)
        return {} if field is None else field.text_map(check)

    def flag(self, key: str, default: bool = False) -> bool:
        return self.read(key, Field.flag, default)

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        return self.read(key, lambda field: field.integer(low, high), default)

    def present(self, *keys: str) -> list[str]:
        """Which of these keys are there (not null), in the given order."""
        return [key for key in keys if self.at.value.get(key) is not None]
