"""direct.h: which connections between two pods of the node may take the kernel path, and those that do."""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Collection, Mapping
from functools import lru_cache
from socket import htons, ntohs
from typing import Final, NamedTuple

from ambient.datapath import bpfsys, layout
from ambient.datapath.batch import entries
from ambient.datapath.layout import WayFlag
from ambient.model.address import Endpoint, IpAddress

_NUMBER: Final = struct.Struct("=Q")
_FIRST: Final = bytes(4)
_FLOW: Final = struct.Struct("=16s16sHH")
_WAY: Final = struct.Struct(f"=QQQQQ{ctypes.sizeof(layout.flow)}x12xI4x")
"""What is read often is read without ctypes; a test compares both."""
_ADDRESSES_KEPT: Final = 4_096

MOST_CONNECTIONS: Final = 65_536
"""DIRECT_WAYS_MAX, two for each."""
CALL_SIZE: Final = ctypes.sizeof(layout.direct_call)
GRANT_SIZE: Final = ctypes.sizeof(layout.direct_grant)
WAY_SIZE: Final = ctypes.sizeof(layout.direct_way)


class Call(NamedTuple):
    """What a pod opens: from which of its addresses to what."""

    source: IpAddress
    dialled: Endpoint


class Tuple(NamedTuple):
    """The four-tuple of one direction."""

    source: Endpoint
    destination: Endpoint

    @property
    def reverse(self) -> Tuple:
        return Tuple(self.destination, self.source)


class Way(NamedTuple):
    """One direction of a connection. Times are CLOCK_MONOTONIC; `octets` are the application's, `flags` of WayFlag;
    `cookie`: of the socket that sends on it, 0 while none has."""

    opened_s: float
    seen_s: float
    octets: int
    packets: int
    flags: int
    cookie: int = 0


class Ends(NamedTuple):
    """The ends of one connection, and of no other of its four-tuple: `client` and `server` are the cookies of the
    sockets, 0 where none has sent anything."""

    tuple: Tuple
    opened_s: float
    client: int
    server: int


class Direct:
    """The grants, what was asked for, how long grants count, the ways, and how many each pod may make. Calls raise
    KernelError."""

    __slots__ = ("_asks", "_grants", "_lease", "_made", "_room", "_ways")

    def __init__(
        self,
        grants: bpfsys.Map,
        asks: bpfsys.Map,
        lease: bpfsys.Map,
        ways: bpfsys.Map,
        made: bpfsys.Map,
        room: bpfsys.Map,
    ) -> None:
        self._grants = grants
        self._asks = asks
        self._lease = lease
        self._ways = ways
        self._made = made
        self._room = room

    def grant(self, call: Call, server: Endpoint) -> None:
        """Connections like this may go directly to the endpoint; also raises when the map is full."""
        row = layout.direct_grant(server=_address(server.ip), port=server.port)
        self._grants.put(_call(call), bytes(row))

    def revoke(self, calls: Collection[Call]) -> None:
        """They may not any more."""
        for call in calls:
            self._grants.delete(_call(call))

    def grants(self) -> list[Call]:
        """Those that are there."""
        return [_called(key) for key in self._grants.walk()]

    def take_asks(self) -> list[Call]:
        """What was opened without a grant since the last time."""
        keys = list(self._asks.walk())
        for key in keys:
            self._asks.delete(key)
        return [_called(key) for key in keys]

    def renew(self, seconds: float) -> None:
        """Grants count for so long from now; 0: not any more."""
        until = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(seconds * 1e9) if seconds else 0
        self._lease.put(_FIRST, _NUMBER.pack(until))

    def ways(self) -> Mapping[Tuple, Way]:
        """Every direction of every connection that is not forgotten yet."""
        table = self._ways
        found = entries(table.descriptor, table.key_size, table.value_size, str(table.path))
        return {_tuple(key): _way(value) for key, value in found}

    def cut(self, tuples: Collection[Tuple]) -> None:
        """What still comes on these is dropped. Those that are gone stay gone."""
        for one in tuples:
            key = _key(one)
            data = self._ways.get(key)
            if data is not None:
                raw = layout.direct_way.from_buffer_copy(data)
                raw.flags |= WayFlag.CUT
                self._ways.put(key, bytes(raw))

    def forget(self, tuples: Collection[Tuple]) -> None:
        """These are over."""
        for one in tuples:
            self._ways.delete(_key(one))

    def made(self) -> dict[IpAddress, int]:
        """How many connections each address began so far, of those that were ever given room."""
        table = self._made
        found = entries(table.descriptor, table.key_size, table.value_size, str(table.path))
        return {_unpacked(key): _NUMBER.unpack(value)[0] for key, value in found}

    def give_room(self, room: Mapping[IpAddress, int]) -> None:
        """Each of these addresses may begin connections up to that one, counted as `made` counts them."""
        for ip, until in room.items():
            if self._made.get(_packed(ip)) is None:
                self._made.put(_packed(ip), _NUMBER.pack(0))
            self._room.put(_packed(ip), _NUMBER.pack(until))

    def take_room(self, clients: Collection[IpAddress]) -> None:
        """These may begin none any more."""
        for ip in clients:
            self._room.delete(_packed(ip))
            self._made.delete(_packed(ip))


@lru_cache(_ADDRESSES_KEPT)
def _packed(ip: IpAddress) -> bytes:
    return layout.pack_address(ip)


@lru_cache(_ADDRESSES_KEPT)
def _unpacked(data: bytes) -> IpAddress:
    return layout.unpack_address(data)


def _address(ip: IpAddress) -> layout.address:
    return layout.address.from_buffer_copy(_packed(ip))


def _call(call: Call) -> bytes:
    source, destination = _address(call.source), _address(call.dialled.ip)
    return bytes(layout.direct_call(source=source, destination=destination, port=call.dialled.port))


def _called(key: bytes) -> Call:
    raw = layout.direct_call.from_buffer_copy(key)
    return Call(_unpacked(bytes(raw.source)), Endpoint(_unpacked(bytes(raw.destination)), raw.port))


def _key(one: Tuple) -> bytes:
    return bytes(
        layout.flow(
            source=_address(one.source.ip),
            destination=_address(one.destination.ip),
            source_port=htons(one.source.port),
            destination_port=htons(one.destination.port),
        )
    )


def _tuple(key: bytes) -> Tuple:
    source, destination, source_port, destination_port = _FLOW.unpack(key)
    return Tuple(
        Endpoint(_unpacked(source), ntohs(source_port)), Endpoint(_unpacked(destination), ntohs(destination_port))
    )


def _way(data: bytes) -> Way:
    opened, seen, octets, packets, cookie, flags = _WAY.unpack(data)
    return Way(opened / 1e9, seen / 1e9, octets, packets, flags, cookie)
