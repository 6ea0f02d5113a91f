"""What stands in for the maps of the programs on a node that runs none: holds nothing, tells nothing, counts nothing.

So ztunnel judges everything, and what only programs see is not told of rather than told to be zero.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ambient.datapath.deny import DenyRow, Table
from ambient.datapath.direct import Call, Tuple, Way
from ambient.datapath.events import Heard
from ambient.datapath.layout import Counter, Option
from ambient.datapath.tallies import Line
from ambient.errors import KernelError
from ambient.model.address import Endpoint, IpAddress


class NoDeny:
    def replace(self, tables: Mapping[Table, list[DenyRow]]) -> Mapping[Table, KernelError]:
        return {table: KernelError("no programs", "rows of policy", "nftables captures") for table in tables}

    def delete(self, tables: Iterable[Table]) -> None: ...

    def tables(self) -> list[Table]:
        return []


class NoShadow:
    def make(self, number: int) -> None: ...

    def clear(self) -> None: ...

    def items(self) -> Mapping[int, int]:
        return {}


class NoLease:
    def renew(self, seconds: float) -> None: ...


class NoEvents:
    def read(self) -> Heard:
        return Heard()


class NoCounters:
    def read(self) -> Mapping[Counter, int]:
        return {}


class NoTallies:
    def take(self) -> list[Line]:
        return []


class NoConfig:
    def options(self) -> Option:
        return Option(0)

    def set(self, option: Option) -> None: ...


class NoDirect:
    def grant(self, call: Call, server: Endpoint) -> None: ...

    def revoke(self, calls: Collection[Call]) -> None: ...

    def grants(self) -> list[Call]:
        return []

    def take_asks(self) -> list[Call]:
        return []

    def renew(self, seconds: float) -> None: ...

    def ways(self) -> Mapping[Tuple, Way]:
        return {}

    def cut(self, tuples: Collection[Tuple]) -> None: ...

    def forget(self, tuples: Collection[Tuple]) -> None: ...

    def made(self) -> Mapping[IpAddress, int]:
        return {}

    def give_room(self, room: Mapping[IpAddress, int]) -> None: ...

    def take_room(self, clients: Collection[IpAddress]) -> None: ...


class NoTables:
    """In place of `ambient.datapath.maps.Maps`, as far as the agent reads and writes besides rows and owners."""

    def __init__(self) -> None:
        self.deny = NoDeny()
        self.shadow = NoShadow()
        self.lease = NoLease()
        self.events = NoEvents()
        self.counters = NoCounters()
        self.tallies = NoTallies()
        self.config = NoConfig()
        self.direct = NoDirect()
