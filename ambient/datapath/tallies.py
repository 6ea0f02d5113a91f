"""tallies.h: what the flows of the node's pods come to, taken from the kernel a sheet at a time.

`take` leaves a clean sheet in the place of the written one. The kernel waits in that call for every program that may
still be writing the old sheet, so that what is read then is whole: nothing is lost between two sheets, nothing told
twice.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

from ambient.datapath import bpfinfo, bpfsys, layout
from ambient.datapath.batch import entries as entries_of
from ambient.datapath.bpfinfo import Kind
from ambient.datapath.layout import End, Path
from ambient.model.address import IpAddress

MOST_LINES: Final = 16_384
"""Of one sheet; a line takes about 170 bytes, when it is there."""
SPARE_LINES: Final = 8_192
"""Beside them: the accounts of pods, and the lines in which is added up what is beyond a pod's share."""
KEY_SIZE: Final = ctypes.sizeof(layout.tally_key)
LINE_SIZE: Final = ctypes.sizeof(layout.tally)
_KEY: Final = struct.Struct("=16s16sHBBII")
_LINE: Final = struct.Struct("=8Q")
_FIRST: Final = struct.pack("=I", 0)
_ACCOUNT: Final = bytes(KEY_SIZE)
_ACCOUNT_PROTOCOL: Final = 0
"""No flow has it: such lines keep account of the sheet itself."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a sheet: flows from `source` to `destination` and its `port` (0: the protocol has none).

    The other end is `::` and the port 0 where what is beyond the pod's share of the sheet was added up together.
    `flows`: that began (`end` NONE) or ended so; bytes without headers where the kernel knows them, from the source's
    point of view, as the packets; `retransmitted` segments of the pod's end; `rtt_us`: the sum of `rtts` smoothed ones.
    """

    source: IpAddress
    destination: IpAddress
    port: int
    protocol: int
    arriving: bool
    path: Path
    end: End
    flows: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    packets_sent: int = 0
    packets_received: int = 0
    retransmitted: int = 0
    rtt_us: int = 0
    rtts: int = 0


class Tallies:
    """The sheet that is written now. `shape`: an empty one; `most` lines are on one, of which no pod has more than are
    left for the others, and `spare` beside them."""

    __slots__ = ("_most", "_shape", "_slot", "_spare")

    def __init__(self, slot: bpfsys.Map, shape: bpfsys.Map, most: int = MOST_LINES, spare: int = SPARE_LINES) -> None:
        self._slot = slot
        self._shape = shape
        self._most = most
        self._spare = spare

    def take(self) -> list[Line]:
        """What was written since the last time, by whomever that was. Takes some ten milliseconds. Raises KernelError;
        what was written goes on growing then, unless the sheet itself cannot be read."""
        there = self._slot.get(_FIRST)
        if there is None:
            self._lay_clean()
            return []
        with bpfinfo.opened_map(*struct.unpack("=I", there)) as written:
            self._lay_clean()
            found = entries_of(written, KEY_SIZE, LINE_SIZE, "a sheet of tallies")
            lines = (_line(key, value) for key, value in found)
            return [line for line in lines if line is not None and line.protocol != _ACCOUNT_PROTOCOL]

    def _lay_clean(self) -> None:
        account = (_ACCOUNT, bytes(layout.tally(bytes_sent=self._most)))
        entries = 1 + self._most + self._spare
        clean = bpfsys.make_filled(Kind.HASH, self._shape, entries, [account], "tallies_sheet")
        try:
            self._slot.put(_FIRST, struct.pack("=I", clean))
        finally:
            os.close(clean)


def _line(key: bytes, value: bytes) -> Line | None:
    """None for one that programs of another version wrote, of a path or an end that this one does not know."""
    source, destination, port, protocol, arriving, path, end = _KEY.unpack(key)
    try:
        which = Path(path), End(end)
    except ValueError:
        return None
    return Line(
        layout.unpack_address(source),
        layout.unpack_address(destination),
        socket.ntohs(port),
        protocol,
        bool(arriving),
        *which,
        *_LINE.unpack(value),
    )
