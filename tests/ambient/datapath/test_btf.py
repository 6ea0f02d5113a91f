"""Reading type information: what it says is found, what is not type information is refused."""

from __future__ import annotations

import struct

import pytest

from ambient.datapath import btf
from ambient.errors import InvalidInput


def blob() -> bytes:
    """struct pair { u32 first; u32 second; }; enum colour { RED = 1, BLUE = 4 };"""
    strings = b"\0pair\0first\0second\0colour\0RED\0BLUE\0u32\0"

    def name(text: bytes) -> int:
        return strings.index(b"\0" + text + b"\0") + 1

    types = struct.pack("<IIII", name(b"u32"), 1 << 24, 4, 32)
    types += struct.pack("<III", name(b"pair"), 4 << 24 | 2, 8)
    types += struct.pack("<IIIIII", name(b"first"), 1, 0, name(b"second"), 1, 32)
    types += struct.pack("<III", name(b"colour"), 6 << 24 | 2, 4)
    types += struct.pack("<IiIi", name(b"RED"), 1, name(b"BLUE"), 4)
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings


def test_structures_and_enumerations_are_found() -> None:
    types = btf.parse(blob())
    assert types.structures == {"pair": btf.Structure(8, {"first": 0, "second": 4})}
    assert types.enumerations == {"colour": {"RED": 1, "BLUE": 4}}


@pytest.mark.parametrize("size", range(0, len(blob()) - 1, 3))
def test_a_blob_that_is_cut_off_is_refused_or_says_less(size: int) -> None:
    try:
        types = btf.parse(blob()[:size])
    except InvalidInput:
        return
    assert len(types.structures) <= 1


def test_something_else_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="not BTF"):
        btf.parse(b"\x7fELF" + bytes(60))


def test_what_the_programs_lack_is_a_difference() -> None:
    found = btf.differences(btf.parse(blob()))
    assert "struct pod_row is not in the programs" in found
    assert any(line.startswith("enum fail_mode: programs have {}") for line in found)
