"""Reading BTF, the type information of eBPF programs, as far as it takes to compare layouts. No I/O.

Format: the kernel's Documentation/bpf/btf.rst. `parse` keeps structures and enumerations.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ambient.datapath.layout import ENUMERATIONS, MIRRORS
from ambient.errors import InvalidInput

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MEMBER = struct.Struct("<III")
_ENUMERATOR = struct.Struct("<Ii")

_STRUCT, _ENUM = 4, 6


@dataclass(frozen=True, slots=True)
class Structure:
    """Size in bytes, and the offset in bytes of each member by name."""

    size: int
    offsets: Mapping[str, int]


@dataclass(slots=True)
class Types:
    """Named structures and enumerations of one BTF blob."""

    structures: dict[str, Structure] = field(default_factory=dict)
    enumerations: dict[str, dict[str, int]] = field(default_factory=dict)


def parse(data: bytes) -> Types:
    """Raises InvalidInput when the blob is not BTF or is cut off."""
    try:
        return _parse(data)
    except (struct.error, IndexError, ValueError) as error:
        raise InvalidInput("not BTF", "type information of a program", str(error)) from error


@dataclass(frozen=True, slots=True)
class Record:
    """One type as it is written. `size` is that of the value in bytes, or the number of another type; `tail` what
    follows the common part. `parse` keeps a few of them."""

    kind: int
    name: str
    size: int
    bitfields: bool
    tail: bytes
    strings: bytes

    def members(self) -> list[tuple[str, int, int]]:
        """Of a structure or union: name, number of the type, offset in bytes."""
        mask = 0xFFFFFF if self.bitfields else 0xFFFFFFFF
        return [
            (_text(self.strings, name), kind, (at & mask) // 8) for name, kind, at in _MEMBER.iter_unpack(self.tail)
        ]


def records(data: bytes) -> list[Record]:
    """All types in the order of their numbers, which begin with 1. Raises InvalidInput."""
    try:
        return list(_records(data))
    except (struct.error, IndexError, ValueError) as error:
        raise InvalidInput("not BTF", "type information of a program", str(error)) from error


def _records(data: bytes) -> Iterator[Record]:
    magic, _, _, header, type_offset, type_size, string_offset, string_size = _HEADER.unpack_from(data, 0)
    if magic != _MAGIC:
        raise ValueError(f"magic is {magic:#x}")
    strings = data[header + string_offset : header + string_offset + string_size]
    at = header + type_offset
    end = at + type_size
    while at < end:
        name_offset, info, size = _TYPE.unpack_from(data, at)
        at += _TYPE.size
        kind, length = (info >> 24) & 0x1F, _tail((info >> 24) & 0x1F, info & 0xFFFF)
        tail = data[at : at + length]
        if len(tail) != length:
            raise ValueError("it is cut off")
        yield Record(kind, _text(strings, name_offset), size, bool(info >> 31), tail, strings)
        at += length


def _text(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode()


def _parse(data: bytes) -> Types:
    found = Types()
    for record in _records(data):
        if record.kind == _STRUCT and record.name:
            offsets = {name: at for name, _, at in record.members()}
            found.structures[record.name] = Structure(record.size, offsets)
        elif record.kind == _ENUM and record.name:
            values = _ENUMERATOR.iter_unpack(record.tail)
            found.enumerations[record.name] = {_text(record.strings, name): value for name, value in values}
    return found


def _tail(kind: int, count: int) -> int:
    """Bytes that follow the common part of a type."""
    match kind:
        case 1 | 14 | 17:  # integer, variable, declaration tag
            return 4
        case 3:  # array
            return 12
        case 4 | 5 | 15 | 19:  # structure, union, data section, 64-bit enumeration
            return 12 * count
        case 6 | 13:  # enumeration, function prototype
            return 8 * count
        case _:
            return 0


def differences(types: Types) -> list[str]:
    """What the mirrors in `layout` say differently from the programs; empty = they agree."""
    return [*_structure_differences(types), *_enumeration_differences(types)]


def _structure_differences(types: Types) -> list[str]:
    found = []
    for mirror in MIRRORS:
        name = mirror.__name__
        theirs = types.structures.get(name)
        ours = Structure(ctypes.sizeof(mirror), {key: getattr(mirror, key).offset for key, *_ in mirror._fields_})
        if theirs is None:
            found.append(f"struct {name} is not in the programs")
        elif (theirs.size, dict(theirs.offsets)) != (ours.size, ours.offsets):
            found.append(f"struct {name}: programs have {theirs}, layout has {ours}")
    return found


def _enumeration_differences(types: Types) -> list[str]:
    found = []
    for name, (prefix, mirror) in ENUMERATIONS.items():
        theirs = {
            key.removeprefix(prefix): value
            for key, value in types.enumerations.get(name, {}).items()
            if key.startswith(prefix)
        }
        ours = {member.name: member.value for member in mirror if member.name is not None}
        if theirs != ours:
            found.append(f"enum {name}: programs have {theirs}, layout has {ours}")
    return found
