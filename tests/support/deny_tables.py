"""The maps of policy and the ring of events without a kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from ambient.datapath.deny import DenyRow, Table
from ambient.datapath.events import Heard, Told, ToldFlow
from ambient.datapath.layout import Counter, Side
from ambient.errors import KernelError
from ambient.model.address import Endpoint, IpAddress
from ambient.model.deny import Row, Says, judge, refuses


@dataclass
class FakeSets:
    counts: dict[int, int] = field(default_factory=dict)

    def make(self, number: int, /) -> None:
        self.counts[number] = 0

    def clear(self) -> None:
        self.counts.clear()

    def items(self) -> Mapping[int, int]:
        return self.counts


@dataclass
class FakeLease:
    renewed: list[float] = field(default_factory=list)

    def renew(self, seconds: float, /) -> None:
        self.renewed.append(seconds)


@dataclass
class FakeTables:
    kept: dict[tuple[IpAddress, Side], list[DenyRow]] = field(default_factory=dict)
    full: bool = False
    sets: FakeSets = field(default_factory=FakeSets)
    replaced: int = 0

    def replace(self, tables: Mapping[Table, list[DenyRow]], /) -> Mapping[Table, KernelError]:
        if self.full:
            return {table: KernelError("too many rows of policy", str(table[0]), "full") for table in tables}
        self.replaced += len(tables)
        self.kept |= tables
        return {}

    def delete(self, tables: Iterable[Table], /) -> None:
        for table in tables:
            self.kept.pop(table, None)

    def tables(self) -> list[tuple[IpAddress, Side]]:
        return list(self.kept)

    def refuses(self, pod: IpAddress, side: Side, port: int, peer: IpAddress) -> bool:
        rows = [Row(row.port, row.block, Says(row.bits)) for row in self.kept.get((pod, side), ())]
        return refuses(judge(rows, port, peer))


@dataclass
class FakeRing:
    waiting: list[Told] = field(default_factory=list)
    flows: list[ToldFlow] = field(default_factory=list)

    def read(self) -> Heard:
        heard, self.waiting, self.flows = Heard(self.waiting, self.flows), [], []
        return heard


def told(time_s: float, reason: Counter = Counter.REFUSED_POLICY_IN, rule: int = 0, *, arriving: bool = True) -> Told:
    """From 10.9.9.9 to port 80 of 10.0.0.5."""
    source, destination = Endpoint(ip_address("10.9.9.9"), 4000), Endpoint(ip_address("10.0.0.5"), 80)
    return Told(time_s, source, destination, reason, rule, 60, arriving)
