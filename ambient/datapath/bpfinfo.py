"""What the kernel tells about maps and programs that are pinned: which they are, and how a map is laid out.

Layouts of the answers: include/uapi/linux/bpf.h, struct bpf_map_info and struct bpf_prog_info.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from ambient.datapath import bpfsys, shapes
from ambient.datapath.shapes import Shape
from ambient.errors import KernelError

_MAP_BY_ID: Final = 14
_PROG_BTF_ID: Final = 128
_BTF_SIZE: Final = 16
_MAP: Final = struct.Struct("=6I16s")
_MAP_TYPES: Final = struct.Struct("=III")
_MAP_TYPES_AT: Final = 64
_MAP_IDS_AT: Final = 52
_MOST_MAPS: Final = 64


class Kind(IntEnum):
    """enum bpf_map_type, as far as we use it."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    SOCKMAP = 15
    SOCKHASH = 18
    SK_STORAGE = 24
    RINGBUF = 27


@dataclass(frozen=True, slots=True)
class MapLayout:
    """`kind`: enum bpf_map_type, also of kinds that we do not know; `entries`: how many it may have, or its bytes."""

    kind: int
    entries: int
    flags: int
    key: Shape
    value: Shape


@contextmanager
def _by_id(command: int, identifier: int, what: str) -> Iterator[int]:
    try:
        descriptor = bpfsys.call(command, struct.pack("I", identifier), what, str(identifier))
    except OSError as error:
        raise KernelError(f"cannot open {what}", f"number {identifier}", os.strerror(error.errno or 0)) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_map(identifier: int) -> Iterator[int]:
    """A descriptor of the map with that number. Raises KernelError when there is none any more."""
    with _by_id(_MAP_BY_ID, identifier, "a map") as table:
        yield table


def program_types(path: Path) -> bytes:
    """The BTF of the program pinned at `path`: the types that its maps and code use."""
    with bpfsys.opened(path) as program:
        told = bpfsys.object_info(program, bpfsys.PROG_INFO_SIZE, str(path))
    (btf,) = struct.unpack_from("=I", told, _PROG_BTF_ID)
    if btf == 0:
        raise KernelError("a program was loaded without BTF", str(path), "its layout cannot be checked")
    return types(btf, str(path))


def types(btf: int, where: str) -> bytes:
    """The BTF that the kernel has under this number. Raises KernelError."""
    with _by_id(bpfsys.BTF_BY_ID, btf, "BTF") as descriptor:
        (size,) = struct.unpack_from("=I", bpfsys.object_info(descriptor, _BTF_SIZE, where), 8)
        data = ctypes.create_string_buffer(size)
        asked = struct.pack("=QII", ctypes.addressof(data), size, 0)
        bpfsys.object_info(descriptor, _BTF_SIZE, where, asked)
    return data.raw


def map_id(path: Path) -> int:
    """The kernel's number of the map pinned at `path`. Raises FileNotFoundError or KernelError."""
    with bpfsys.opened(path) as table:
        return int(_MAP.unpack_from(bpfsys.object_info(table, bpfsys.MAP_INFO_SIZE, str(path)))[1])


def map_name(identifier: int) -> str:
    """As its loader named it (15 letters). Raises KernelError or OSError."""
    with opened_map(identifier) as table:
        told = bpfsys.object_info(table, bpfsys.MAP_INFO_SIZE, str(identifier))
    return str(_MAP.unpack_from(told)[6].split(b"\0")[0].decode(errors="replace"))


def map_layout(path: Path) -> MapLayout:
    """Members by name where the map was loaded with BTF, else sizes only. Raises FileNotFoundError or KernelError."""
    with bpfsys.opened(path) as table:
        told = bpfsys.object_info(table, bpfsys.MAP_INFO_SIZE, str(path))
    kind, _, key_size, value_size, entries, flags, _ = _MAP.unpack_from(told)
    btf, key_type, value_type = _MAP_TYPES.unpack_from(told, _MAP_TYPES_AT)
    key, value = shapes.opaque(key_size), shapes.opaque(value_size)
    if btf and value_type:
        known = shapes.Catalogue(types(btf, str(path)))
        key, value = known.shape(key_type), known.shape(value_type)
    if (key.size, value.size) != (key_size, value_size):
        raise KernelError("a map's type information is not its own", str(path), f"{key} {value}")
    return MapLayout(kind, entries, flags, key, value)


def program_maps(path: Path) -> list[int]:
    """The numbers of the maps that the program pinned at `path` uses. Raises FileNotFoundError or KernelError."""
    numbers = ctypes.create_string_buffer(4 * _MOST_MAPS)
    request = bytearray(bpfsys.PROG_INFO_SIZE)
    struct.pack_into("=IQ", request, _MAP_IDS_AT, _MOST_MAPS, ctypes.addressof(numbers))
    with bpfsys.opened(path) as program:
        told = bpfsys.object_info(program, len(request), str(path), bytes(request))
    (count,) = struct.unpack_from("=I", told, _MAP_IDS_AT)
    return list(struct.unpack_from(f"={min(count, _MOST_MAPS)}I", numbers))
