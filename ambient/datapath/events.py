"""events.h and flow_pace.h: reading the ring in which the programs tell of single packets and flows.

The ring is read through a mapping of its memory: no system call for each event. One reader at a time. Layout of a ring,
and what must be read before what: the kernel's Documentation/bpf/ringbuf.rst.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ambient.datapath import bpfsys, layout
from ambient.datapath.barrier import Barrier
from ambient.datapath.layout import Counter, End
from ambient.datapath.layout import Path as Way
from ambient.errors import Unavailable
from ambient.model.address import Endpoint

_POSITION: Final = struct.Struct("=Q")
_HEADER: Final = struct.Struct("=II")
_BUSY: Final = 1 << 31
_DISCARDED: Final = 1 << 30
_SIZE: Final = 1 << 18
"""EVENTS_BYTES."""
_FLOW_SIZE: Final = ctypes.sizeof(layout.flow_event)
"""By their length the two kinds are told apart."""


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


@dataclass(frozen=True, slots=True)
class ToldFlow:
    """One flow that began (`end` NONE) or ended. `source` opened it; bytes and packets from its point of view;
    `retransmitted` segments of the pod's end; times as of Told, `rtt_us` 0: not known."""

    time_s: float
    source: Endpoint
    destination: Endpoint
    protocol: int
    arriving: bool
    path: Way
    end: End
    opened_s: float
    bytes_sent: int
    bytes_received: int
    packets_sent: int
    packets_received: int
    retransmitted: int
    rtt_us: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What was told, each kind in order."""

    packets: list[Told] = field(default_factory=list)
    flows: list[ToldFlow] = field(default_factory=list)


class Events:
    """The ring pinned at `path`. `close` it."""

    def __init__(self, path: Path) -> None:
        """Raises Unavailable when there is none, KernelError when the kernel refuses."""
        self._barrier = Barrier()
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

    def read(self) -> Heard:
        """Everything that was told since the last time."""
        (at,) = _POSITION.unpack_from(self._reader, 0)
        (end,) = _POSITION.unpack_from(self._ring, 0)
        if at == end:
            return Heard()
        self._barrier()  # the writer's position before what it says is there
        found, at = parse(memoryview(self._ring)[mmap.PAGESIZE :], at, end, self._barrier)
        self._barrier()  # everything was read before it may be written over
        _POSITION.pack_into(self._reader, 0, at)
        return found


def parse(data: memoryview | bytes, at: int, end: int, barrier: Callable[[], None] = lambda: None) -> tuple[Heard, int]:
    """The events between two positions, and the position of the first that is not complete yet. `data` is the ring
    twice in a row, so that no event is cut in two. `barrier` is passed between what says that events are complete and
    the events."""
    complete = []
    half = len(data) // 2
    while at < end:
        start = at % half
        length, _ = _HEADER.unpack_from(data, start)
        if length & _BUSY:
            break
        size = length & ~(_BUSY | _DISCARDED)
        if not length & _DISCARDED:
            complete.append((start + _HEADER.size, size))
        at += (size + _HEADER.size + 7) & ~7
    barrier()
    heard = Heard()
    for start, size in complete:
        with suppress(ValueError):  # told by programs of another version, which say what this one does not know
            if size < _FLOW_SIZE:
                heard.packets.append(_told(bytes(data[start : start + size])))
            else:
                heard.flows.append(_told_flow(bytes(data[start : start + size])))
    return heard, at


def _told(data: bytes) -> Told:
    raw = layout.event.from_buffer_copy(data[: ctypes.sizeof(layout.event)])
    return Told(
        time_s=raw.time / 1e9,
        source=_endpoint(raw.source, raw.source_port),
        destination=_endpoint(raw.destination, raw.destination_port),
        reason=Counter(raw.reason),
        rule=raw.rule,
        size=raw.size,
        arriving=bool(raw.arriving),
    )


def _told_flow(data: bytes) -> ToldFlow:
    raw = layout.flow_event.from_buffer_copy(data)
    return ToldFlow(
        time_s=raw.time / 1e9,
        source=_endpoint(raw.source, raw.source_port),
        destination=_endpoint(raw.destination, raw.destination_port),
        protocol=raw.protocol,
        arriving=bool(raw.arriving),
        path=Way(raw.path),
        end=End(raw.end),
        opened_s=raw.opened / 1e9,
        bytes_sent=raw.bytes_sent,
        bytes_received=raw.bytes_received,
        packets_sent=raw.packets_sent,
        packets_received=raw.packets_received,
        retransmitted=raw.retransmitted,
        rtt_us=raw.rtt,
    )


def _endpoint(ip: layout.address, port: int) -> Endpoint:
    return Endpoint(layout.unpack_address(bytes(ip)), socket.ntohs(port))
