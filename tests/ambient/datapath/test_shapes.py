"""Values from one version to another: by the names of members, in both directions, refused where they do not fit."""

from __future__ import annotations

import struct
import sys

import pytest

from ambient.datapath.shapes import Catalogue, Field, Shape, converted, opaque
from ambient.errors import InvalidInput


def blob() -> bytes:
    """1 u32, 2 struct inner { u32 first, second; }, 3 u32[4], 4 typedef row of 5 { inner pair; u32 words[4]; }."""
    strings = b"\0u32\0inner\0first\0second\0row\0pair\0words\0"

    def name(text: bytes) -> int:
        return strings.index(b"\0" + text + b"\0") + 1

    types = struct.pack("<IIII", name(b"u32"), 1 << 24, 4, 32)
    types += struct.pack("<III", name(b"inner"), 4 << 24 | 2, 8)
    types += struct.pack("<IIIIII", name(b"first"), 1, 0, name(b"second"), 1, 32)
    types += struct.pack("<IIIIII", 0, 3 << 24, 0, 1, 1, 4)
    types += struct.pack("<III", name(b"row"), 8 << 24, 5)
    types += struct.pack("<III", 0, 4 << 24 | 2, 24)
    types += struct.pack("<IIIIII", name(b"pair"), 2, 0, name(b"words"), 3, 64)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def test_a_type_is_its_members_by_name() -> None:
    assert Catalogue(blob()).shape(4) == Shape(
        24,
        (
            Field("pair.first", 0, 4, number=True),
            Field("pair.second", 4, 4, number=True),
            Field("words", 8, 16, number=False),
        ),
    )
    assert Catalogue(blob()).shape(1) == Shape(4, (Field("", 0, 4, number=True),))


@pytest.mark.parametrize("number", [0, 6, 4711])
def test_what_is_no_type_is_refused(number: int) -> None:
    with pytest.raises(InvalidInput, match="not a type"):
        Catalogue(blob()).shape(number)


def numbers(*members: tuple[str, int, int], size: int) -> Shape:
    return Shape(size, tuple(Field(name, offset, width, number=True) for name, offset, width in members))


OLD = numbers(("flags", 0, 4), ("epoch", 4, 4), size=8)
NEW = numbers(("colour", 0, 4), ("epoch", 4, 8), ("flags", 12, 4), size=16)


def test_members_move_widen_and_begin_as_zero_and_come_back_the_same() -> None:
    value = struct.pack("=II", 0x01020304, 0xFFFFFFFF)
    there = converted(value, OLD, NEW)
    assert there == struct.pack("=IQI", 0, 0xFFFFFFFF, 0x01020304)
    assert converted(there, NEW, OLD) == value


def test_a_number_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"epoch.*4294967296 does not fit in 4 bytes"):
        converted(struct.pack("=IQI", 0, 1 << 32, 0), NEW, OLD)


def test_what_is_no_number_keeps_its_size() -> None:
    assert converted(b"abc", opaque(3), opaque(3)) == b"abc"
    with pytest.raises(InvalidInput, match="another size"):
        converted(b"abc", opaque(3), opaque(4))
    assert opaque(0) == Shape(0, ())


def test_a_value_that_is_a_plain_number_widens_on_its_low_end() -> None:
    narrow, wide = numbers(("", 0, 4), size=4), numbers(("", 0, 8), size=8)
    assert int.from_bytes(converted(struct.pack("=I", 7), narrow, wide), sys.byteorder) == 7
