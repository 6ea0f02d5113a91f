"""The pinned maps with types. A `Maps` holds one descriptor per map; any process may open its own at any time."""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ambient.datapath import bpfsys, layout, tallies
from ambient.datapath.cgroups import cgroup_id as cgroup_id
from ambient.datapath.cgroups import cgroup_id_of as cgroup_id_of
from ambient.datapath.deny import DenyTables as DenyTables
from ambient.datapath.deny import PolicyLease as PolicyLease
from ambient.datapath.deny import Shadow as Shadow
from ambient.datapath.direct import CALL_SIZE, GRANT_SIZE, WAY_SIZE
from ambient.datapath.direct import Direct as Direct
from ambient.datapath.events import Events as Events
from ambient.datapath.layout import Counter as Counter
from ambient.datapath.layout import FailMode as FailMode
from ambient.datapath.layout import Flag as Flag
from ambient.datapath.layout import Option as Option
from ambient.datapath.layout import PodRow as PodRow
from ambient.datapath.layout import Role as Role
from ambient.datapath.layout import Side as Side
from ambient.datapath.tallies import Tallies as Tallies
from ambient.errors import Unavailable
from ambient.model.address import Endpoint, IpAddress

MAPS: Final = "maps"
"""Directory of the map pins below the node's bpffs directory."""


class Pods:
    """pods.h: a row per pod address."""

    __slots__ = ("_map",)

    def __init__(self, table: bpfsys.Map) -> None:
        self._map = table

    def get(self, ip: IpAddress) -> PodRow | None:
        data = self._map.get(layout.pack_address(ip))
        return None if data is None else layout.unpack_row(data)

    def put(self, ip: IpAddress, row: PodRow) -> None:
        """Takes effect with the next packet. Raises KernelError, also when the map is full."""
        self._map.put(layout.pack_address(ip), layout.pack_row(row))

    def delete(self, ip: IpAddress) -> bool:
        """False: there was none."""
        return self._map.delete(layout.pack_address(ip))

    def items(self) -> dict[IpAddress, PodRow]:
        found = {}
        for key in self._map.walk():
            data = self._map.get(key)
            if data is not None:
                found[layout.unpack_address(key)] = layout.unpack_row(data)
        return found


class Owners:
    """owners.h: the roles of cgroups, by cgroup v2 id."""

    __slots__ = ("_map",)

    def __init__(self, table: bpfsys.Map) -> None:
        self._map = table

    def put(self, cgroup: int, role: Role) -> None:
        self._map.put(struct.pack("=Q", cgroup), struct.pack("=I", role))

    def delete(self, cgroup: int) -> bool:
        return self._map.delete(struct.pack("=Q", cgroup))

    def items(self) -> dict[int, Role]:
        found = {}
        for key in self._map.walk():
            data = self._map.get(key)
            if data is not None:
                found[int(struct.unpack("=Q", key)[0])] = Role(struct.unpack("=I", data)[0])
        return found


class Config:
    """config.h: the node's options. Zero is the strict reading."""

    __slots__ = ("_map",)

    def __init__(self, table: bpfsys.Map) -> None:
        self._map = table

    def options(self) -> Option:
        return Option(struct.unpack("=I", self._map.get(bytes(4)) or bytes(4))[0])

    def set(self, option: Option) -> None:
        self._map.put(bytes(4), struct.pack("=I", option))


class Clear:
    """clear.h: connections that may go past ztunnel in clear text, because they are older than the enrolment."""

    __slots__ = ("_map",)

    def __init__(self, table: bpfsys.Map) -> None:
        self._map = table

    def admit(self, local: Endpoint, remote: Endpoint) -> None:
        """`local` is the pod's end. Raises KernelError."""
        key = layout.flow(
            source=layout.address.from_buffer_copy(layout.pack_address(remote.ip)),
            destination=layout.address.from_buffer_copy(layout.pack_address(local.ip)),
            source_port=socket.htons(remote.port),
            destination_port=socket.htons(local.port),
        )
        self._map.put(bytes(key), struct.pack("=Q", time.clock_gettime_ns(time.CLOCK_MONOTONIC)))


class Counters:
    """counters.h: decisions since the map was made."""

    __slots__ = ("_cpus", "_map")

    def __init__(self, table: bpfsys.Map, cpus: int) -> None:
        self._map = table
        self._cpus = cpus

    def read(self) -> dict[Counter, int]:
        """Every reason, summed over CPUs."""
        return {reason: self._of(reason) for reason in Counter}

    def _of(self, reason: Counter) -> int:
        data = self._map.get(struct.pack("=I", reason))
        return sum(struct.unpack(f"={self._cpus}Q", data)) if data else 0


class Maps:
    """All maps of one node. Use as a context manager or call `close`."""

    __slots__ = (
        *("_open", "clear", "config", "counters", "deny", "direct", "events", "owners", "pods", "lease"),
        *("shadow", "tallies"),
    )

    def __init__(self, bpffs: Path) -> None:
        """Raises Unavailable when nothing is loaded there, KernelError when what is there has another layout."""
        cpus = bpfsys.possible_cpus()
        bpfsys.lift_memory_limit()
        with ExitStack() as stack:

            def open_map(name: str, key_size: int, value_size: int) -> bpfsys.Map:
                try:
                    table = bpfsys.Map(bpffs / MAPS / name, key_size, value_size)
                except FileNotFoundError as error:
                    raise Unavailable("no datapath is loaded", str(bpffs), f"map {name} is not pinned") from error
                stack.callback(table.close)
                return table

            self.pods = Pods(open_map("pods", 16, len(layout.pack_row(PodRow()))))
            self.owners = Owners(open_map("owners", 8, 4))
            self.config = Config(open_map("config", 4, 4))
            self.counters = Counters(open_map("counters", 4, 8 * cpus), cpus)
            shape = open_map("deny_rows", layout.DENY_KEY_SIZE, layout.DENY_ROW_SIZE)
            self.deny = DenyTables(open_map("deny", ctypes.sizeof(layout.deny_table), 4), shape)
            self.lease = PolicyLease(open_map("policy_lease", 4, 8))
            self.shadow = Shadow(open_map("shadow", 4, 8 * cpus), cpus)
            self.clear = Clear(open_map("clear", ctypes.sizeof(layout.flow), 8))
            self.tallies = Tallies(
                open_map("tallies", 4, 4), open_map("tallies_sheet", tallies.KEY_SIZE, tallies.LINE_SIZE)
            )
            self.direct = Direct(
                open_map("direct_grants", CALL_SIZE, GRANT_SIZE),
                open_map("direct_asks", CALL_SIZE, 8),
                open_map("direct_lease", 4, 8),
                open_map("direct_ways", ctypes.sizeof(layout.flow), WAY_SIZE),
                open_map("direct_made", 16, 8),
                open_map("direct_room", 16, 8),
            )
            self.events = Events(bpffs / MAPS / "events")
            stack.callback(self.events.close)
            self._open = stack.pop_all()

    @classmethod
    def open(cls, bpffs: Path) -> Self:
        return cls(bpffs)

    def close(self) -> None:
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
