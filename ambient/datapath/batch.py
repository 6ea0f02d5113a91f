"""Reading a hash of the kernel's, many entries in one call (BPF_MAP_LOOKUP_BATCH, since Linux 5.6)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import Final

from ambient.datapath import bpfsys
from ambient.errors import KernelError

_AT_ONCE: Final = 4_096
"""Entries in one call; no bucket of a hash holds more."""
_ATTRIBUTES: Final = struct.Struct("QQQQIIQQ")
_COUNT_AT: Final = 32


def entries(table: int, key_size: int, value_size: int, what: str) -> Iterator[tuple[bytes, bytes]]:
    """Every entry of a plain hash that is there all the time, by its descriptor. Raises KernelError naming `what`."""
    keys, values = (ctypes.create_string_buffer(_AT_ONCE * size) for size in (key_size, value_size))
    at, then = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
    begun, more = False, True
    while more:
        result, answer = bpfsys.run(
            bpfsys.MAP_LOOKUP_BATCH,
            _ATTRIBUTES.pack(
                ctypes.addressof(at) if begun else 0,
                ctypes.addressof(then),
                ctypes.addressof(keys),
                ctypes.addressof(values),
                _AT_ONCE,
                table,
                0,
                0,
            ),
        )
        more = result != -errno.ENOENT
        if more and result < 0:
            raise KernelError("the kernel refuses a map operation", what, os.strerror(-result))
        (found,) = struct.unpack_from("I", answer, _COUNT_AT)
        yield from zip(_parts(keys, key_size, found), _parts(values, value_size, found), strict=True)
        at.raw, begun = then.raw, True


def _parts(block: ctypes.Array[ctypes.c_char], size: int, count: int) -> Iterator[bytes]:
    data = ctypes.string_at(block, size * count)
    return (data[start : start + size] for start in range(0, size * count, size))
