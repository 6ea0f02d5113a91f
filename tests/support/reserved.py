"""bpf/maps/reservations.h from outside: what is noted, and notes that a test puts there itself."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ambient.datapath import bpfinfo, bpfsys
from ambient.datapath.layout import address, flow, pack_address
from ambient.model.address import Endpoint

ALIKE: Final = 4
YOUNG: Final = 1 << 62
OLD: Final = 1
"""Times, in ns since the machine started; the first is still to come: it stays young on a slow machine too."""
NO_LISTENER: Final = 1
"""A name that nobody has: who is given to it is given to nobody."""


class look_up(ctypes.Structure):
    _fields_ = (("flow", flow), ("protocol", ctypes.c_uint32))


class reservation(ctypes.Structure):
    _fields_ = (
        ("asked", look_up),
        ("since", ctypes.c_uint64),
        ("used", ctypes.c_uint64),
        ("name", ctypes.c_uint64),
    )


class row(ctypes.Structure):
    _fields_ = (("lock", ctypes.c_uint32), ("unused", ctypes.c_uint32), ("places", reservation * ALIKE))


def asked_by(source: Endpoint, destination: Endpoint, protocol: int = socket.IPPROTO_TCP) -> look_up:
    made = flow(
        source=address.from_buffer_copy(pack_address(source.ip)),
        destination=address.from_buffer_copy(pack_address(destination.ip)),
        source_port=socket.htons(source.port),
        destination_port=socket.htons(destination.port),
    )
    return look_up(made, protocol)


class Reservations:
    """The rows of a loaded datapath, by number."""

    def __init__(self, bpffs: Path) -> None:
        path = bpffs / "maps" / "reservations"
        layout = bpfinfo.map_layout(path)
        assert layout.value.size == ctypes.sizeof(row)
        self.entries = layout.entries
        self._map = bpfsys.Map(path, layout.key.size, layout.value.size)

    def close(self) -> None:
        self._map.close()

    def put(self, number: int, value: row) -> None:
        self._map.put(number.to_bytes(4, sys.byteorder), bytes(value))

    def put_everywhere(self, value: row) -> None:
        self._map.put_many({number.to_bytes(4, sys.byteorder): bytes(value) for number in range(self.entries)})

    def get(self, number: int) -> row:
        return row.from_buffer_copy(self._map.get(number.to_bytes(4, sys.byteorder)) or b"")

    def find(self, asked: look_up) -> tuple[int, int] | None:
        """Row and place of what is noted."""
        for number in range(self.entries):
            for place, one in enumerate(self.get(number).places):
                if bytes(one.asked) == bytes(asked):
                    return number, place
        return None


@contextlib.contextmanager
def reservations(bpffs: Path) -> Iterator[Reservations]:
    """Empty afterwards."""
    made = Reservations(bpffs)
    try:
        yield made
    finally:
        made.put_everywhere(row())
        made.close()


def siphash_1_3(key: bytes, data: bytes) -> int:
    """As its authors define it (Aumasson, Bernstein: SipHash: a fast short-input PRF), 64 bits. `key`: 16 octets."""
    mask = (1 << 64) - 1
    first, second = (int.from_bytes(key[at : at + 8], "little") for at in (0, 8))
    a, b = first ^ 0x736F6D6570736575, second ^ 0x646F72616E646F6D
    c, d = first ^ 0x6C7967656E657261, second ^ 0x7465646279746573

    def turned(word: int, by: int) -> int:
        return (word << by | word >> (64 - by)) & mask

    def rounds(count: int) -> None:
        nonlocal a, b, c, d
        for _ in range(count):
            a, c = (a + b) & mask, (c + d) & mask
            b, d = turned(b, 13) ^ a, turned(d, 16) ^ c
            a = turned(a, 32)
            c, a = (c + b) & mask, (a + d) & mask
            b, d = turned(b, 17) ^ c, turned(d, 21) ^ a
            c = turned(c, 32)

    whole = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for at in range(0, len(whole), 8):
        word = int.from_bytes(whole[at : at + 8], "little")
        d ^= word
        rounds(1)
        a ^= word
    c ^= 0xFF
    rounds(3)
    return a ^ b ^ c ^ d
