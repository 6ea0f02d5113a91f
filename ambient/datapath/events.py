"""events.h: reading the ring in which the programs tell of single packets.

The ring is read through a mapping of its memory: no system call for each event. One reader at a time. Layout of a ring:
the kernel's Documentation/bpf/ringbuf.rst.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.datapath import bpfsys, layout
from ambient.datapath.layout import Counter
from ambient.errors import Unavailable
from ambient.model.address import Endpoint

_POSITION: Final = struct.Struct("=Q")
_HEADER: Final = struct.Struct("=II")
_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_SIZE: Final = 1 << 18
"""EVENTS_BYTES."""


@dataclass(frozen=True, slots=True)
class Told:
    """One packet. `time_s` is CLOCK_MONOTONIC; `rule` 0: nobody's; `size` in bytes."""

    time_s: float
    source: Endpoint
    destination: Endpoint
    reason: Counter
    rule: int
    size: int
    arriving: bool


class Events:
    """The ring pinned at `path`. `close` it."""

    def __init__(self, path: Path) -> None:
        """Raises Unavailable when there is none, KernelError when the kernel refuses."""
        try:
            self._descriptor = bpfsys.open_pin(path)
        except FileNotFoundError as error:
            raise Unavailable("no datapath is loaded", str(path), "the ring of events is not pinned") from error
        page = mmap.PAGESIZE
        self._reader = mmap.mmap(self._descriptor, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._ring = mmap.mmap(
            self._descriptor, page + 2 * _SIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=page
        )  # the writer's position, then the data twice in a row

    def close(self) -> None:
        self._reader.close()
        self._ring.close()
        os.close(self._descriptor)

    def read(self) -> list[Told]:
        """Everything that was told since the last time, in order."""
        (at,) = _POSITION.unpack_from(self._reader, 0)
        (end,) = _POSITION.unpack_from(self._ring, 0)
        found, at = parse(memoryview(self._ring)[mmap.PAGESIZE :], at, end)
        _POSITION.pack_into(self._reader, 0, at)
        return found


def parse(data: memoryview | bytes, at: int, end: int) -> tuple[list[Told], int]:
    """The events between two positions, and the position of the first that is not complete yet. `data` is the ring
    twice in a row, so that no event is cut in two."""
    found = []
    half = len(data) // 2
    while at < end:
        start = at % half
        length, _ = _HEADER.unpack_from(data, start)
        if length & _BUSY:
            break
        size = length & ~(_BUSY | _DISCARDED)
        if not length & _DISCARDED:
            found.append(_told(bytes(data[start + _HEADER.size : start + _HEADER.size + size])))
        at += (size + _HEADER.size + 7) & ~7
    return found, at


def _told(data: bytes) -> Told:
    raw = layout.event.from_buffer_copy(data[: ctypes.sizeof(layout.event)])
    return Told(
        time_s=raw.time / 1e9,
        source=Endpoint(layout.unpack_address(bytes(raw.source)), socket.ntohs(raw.source_port)),
        destination=Endpoint(layout.unpack_address(bytes(raw.destination)), socket.ntohs(raw.destination_port)),
        reason=Counter(raw.reason),
        rule=raw.rule,
        size=raw.size,
        arriving=bool(raw.arriving),
    )
