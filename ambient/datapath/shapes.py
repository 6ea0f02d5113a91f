"""Values of maps member by member: what BTF says of a type, and a value of one version as another version has it.

Pure. A member is known by its name: one that both have is carried over, a new one begins as zero (which every header
of `bpf/` takes for the strict reading), one that is no more is dropped.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass

from ambient.datapath.btf import Record, records
from ambient.errors import InvalidInput

_INT, _POINTER, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_ALIASES = frozenset({8, 9, 10, 11, 18})  # typedef, volatile, const, restrict, type tag
_ENUM64 = 19
_POINTER_SIZE = 8


@dataclass(frozen=True, slots=True)
class Field:
    """Bytes at `offset`; `name` with dots where structures are nested, "" for a value that is no structure. `number`:
    an integer, which keeps its value when it becomes wider."""

    name: str
    offset: int
    size: int
    number: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """A type of `size` bytes, padding left out of `fields`."""

    size: int
    fields: tuple[Field, ...]


def opaque(size: int) -> Shape:
    """Of which only the size is known."""
    return Shape(size, (Field("", 0, size, number=False),) if size else ())


class Catalogue:
    """The types of one BTF blob by their numbers. Raises InvalidInput when it is none."""

    def __init__(self, data: bytes) -> None:
        self._records: list[Record | None] = [None, *records(data)]

    def shape(self, number: int) -> Shape:
        """Raises InvalidInput for a number that is no type with a size."""
        try:
            return Shape(self._size(number), tuple(self._fields(number, "", 0)))
        except (IndexError, struct.error, RecursionError) as error:
            raise InvalidInput("not a type", f"type {number}", str(error)) from error

    def _resolved(self, number: int) -> Record:
        record = self._records[number]
        while record is not None and record.kind in _ALIASES:
            record = self._records[record.size]
        if record is None:
            raise IndexError("void has no size")
        return record

    def _size(self, number: int) -> int:
        record = self._resolved(number)
        match record.kind:
            case 1 | 4 | 5 | 6 | 19:  # integer, structure, union, enumerations
                return record.size
            case 2:
                return _POINTER_SIZE
            case 3:
                element, _, count = struct.unpack_from("=III", record.tail)
                return int(count) * self._size(element)
        raise IndexError(f"kind {record.kind} has no size")

    def _fields(self, number: int, name: str, offset: int) -> list[Field]:
        record = self._resolved(number)
        if record.kind != _STRUCT:
            number_like = record.kind in (_INT, _ENUM, _ENUM64)
            return [Field(name, offset, self._size(number), number_like)]
        found = []
        for member, kind, at in record.members():
            path = f"{name}.{member}" if name else member
            found += self._fields(kind, path, offset + at)
        return found


def converted(value: bytes, old: Shape, new: Shape) -> bytes:
    """A value of `old` as `new` has it. Raises InvalidInput when something does not fit: a number that is too large for
    a narrower member, or a member that is no number and has another size."""
    known = {field.name: field for field in old.fields}
    made = bytearray(new.size)
    for field in new.fields:
        before = known.get(field.name)
        if before is None:
            continue
        data = value[before.offset : before.offset + before.size]
        if field.size != before.size:
            data = _resized(data, before, field)
        made[field.offset : field.offset + field.size] = data
    return bytes(made)


def _resized(data: bytes, before: Field, field: Field) -> bytes:
    if not (before.number and field.number):
        raise InvalidInput("a member has another size", field.name or "value", f"{before.size} bytes were {field.size}")
    try:
        return int.from_bytes(data, sys.byteorder).to_bytes(field.size, sys.byteorder)
    except OverflowError:
        why = f"{int.from_bytes(data, sys.byteorder)} does not fit in {field.size} bytes"
        raise InvalidInput("a number is too large", field.name or "value", why) from None
