"""deny.h and shadow.h: what policy is known to refuse per pod address, and how often dry-run policies matched.

A table is replaced as a whole: its rows are written into a new trie, which then takes the place of the old one in one
step. What cannot be written leaves the old one where it is.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ambient.datapath import bpfsys, layout
from ambient.datapath.bpfinfo import Kind
from ambient.datapath.layout import Side
from ambient.errors import KernelError
from ambient.model.address import IpAddress
from ambient.model.deny import Bits

MOST_ROWS: Final = 131_072
"""Of one table. A trie takes about 100 bytes for each."""
_KEY: Final = struct.Struct("=II")
_ROW: Final = struct.Struct("=IIII")
_VALUE: Final = struct.Struct("=I")
_NUMBER: Final = struct.Struct("=Q")
_PORT_BITS: Final = 32

Table = tuple[IpAddress, Side]


class DenyRow(NamedTuple):
    """A row as deny.h has it. `block`: first address as a number of 128 bits, and its length."""

    port: int
    block: tuple[int, int]
    bits: Bits = Bits(0)
    rule: int = 0
    allows: int = 0
    unmatched: int = 0


class DenyTables:
    """deny.h: tables by pod address and side. `shape`: an empty one; `most` rows may be in one."""

    __slots__ = ("_most", "_outer", "_shape")

    def __init__(self, outer: bpfsys.Map, shape: bpfsys.Map, most: int = MOST_ROWS) -> None:
        self._outer = outer
        self._shape = shape
        self._most = most

    def replace(self, tables: Mapping[Table, Sequence[DenyRow]]) -> dict[Table, KernelError]:
        """These rows instead of those that were there, each table in one step; gives those that were refused, and why:
        they are as they were. Takes some ten milliseconds, however many there are."""
        made: dict[Table, int] = {}
        refused: dict[Table, KernelError] = {}
        try:
            for table, rows in tables.items():
                try:
                    made[table] = self._trie(table, rows)
                except KernelError as error:
                    refused[table] = error
            try:
                self._outer.put_many({_key(*table): _VALUE.pack(trie) for table, trie in made.items()})
            except KernelError:
                refused |= self._put_each(made)
        finally:
            for trie in made.values():
                os.close(trie)
        return refused

    def _put_each(self, made: Mapping[Table, int]) -> dict[Table, KernelError]:
        """One after the other, so that it is known of each whether it is there; gives those that are not."""
        refused = {}
        for table, trie in made.items():
            try:
                self._outer.put(_key(*table), _VALUE.pack(trie))
            except KernelError as error:
                refused[table] = error
        return refused

    def _trie(self, table: Table, rows: Sequence[DenyRow]) -> int:
        pod, side = table
        if len(rows) > self._most:
            raise KernelError("too many rows of policy", f"{side.name} of {pod}", f"{len(rows)} of {self._most}")
        return bpfsys.make_filled(
            Kind.LPM_TRIE, self._shape, max(1, len(rows)), _items(rows), f"deny_{side.name.lower()}"
        )

    def delete(self, tables: Iterable[Table]) -> None:
        """Nothing is known any more about these; those that are not there are fine."""
        self._outer.delete_many([_key(*table) for table in {*tables} & {*self.tables()}])

    def tables(self) -> list[Table]:
        """Those that are there, but for what another version has on sides that this one does not know."""
        return [table for key in self._outer.walk() if (table := _table(key)) is not None]


class PolicyLease:
    """policy_lease.h: how long the kernel refuses by rows that ztunnel judges after, once nobody vouches for them."""

    __slots__ = ("_map",)

    def __init__(self, table: bpfsys.Map) -> None:
        self._map = table

    def renew(self, seconds: float) -> None:
        """For so long from now. Raises KernelError."""
        until = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(seconds * 1e9)
        self._map.put(bytes(4), _NUMBER.pack(until))

    def end(self) -> None:
        """As if nobody had ever vouched for them: they count without end. Raises KernelError."""
        self._map.put(bytes(4), _NUMBER.pack(0))

    def left_s(self) -> float | None:
        """How long from now, below zero when it is over; None: without end."""
        (until,) = _NUMBER.unpack(self._map.get(bytes(4)) or bytes(8))
        return (until - time.clock_gettime_ns(time.CLOCK_MONOTONIC)) / 1e9 if until else None


class Shadow:
    """shadow.h: matches of sets of dry-run policies, by number."""

    __slots__ = ("_cpus", "_map")

    def __init__(self, table: bpfsys.Map, cpus: int) -> None:
        self._map = table
        self._cpus = cpus

    def make(self, number: int) -> None:
        """Count this set from now on, from 0. Raises KernelError, also when the map is full."""
        self._map.put(struct.pack("=I", number), bytes(8 * self._cpus))

    def clear(self) -> None:
        for key in list(self._map.walk()):
            self._map.delete(key)

    def items(self) -> dict[int, int]:
        found = {}
        for key in self._map.walk():
            data = self._map.get(key)
            if data is not None:
                found[int(struct.unpack("=I", key)[0])] = sum(struct.unpack(f"={self._cpus}Q", data))
        return found


def _key(pod: IpAddress, side: Side) -> bytes:
    return layout.pack_address(pod) + struct.pack("=I", side)


def _table(key: bytes) -> Table | None:
    (side,) = struct.unpack("=I", key[16:])
    return (layout.unpack_address(key[:16]), Side(side)) if side in set(Side) else None


def _items(rows: Iterable[DenyRow]) -> Iterator[tuple[bytes, bytes]]:
    for port, (number, length), bits, rule, allows, unmatched in rows:
        key = _KEY.pack(_PORT_BITS + length, port) + number.to_bytes(16, "big")
        yield key, _ROW.pack(bits, rule, allows, unmatched)
