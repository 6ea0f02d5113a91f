"""Random policies for UDP and ICMP, packets, and what policy says of each, beside rows and programs."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from ambient.agent.kernel_datagrams import SIDES
from ambient.datapath import bpfsys, deny_rows
from ambient.datapath.deny_rows import Numbers
from ambient.datapath.layout import FailMode, Flag, PodRow
from ambient.datapath.maps import Maps
from ambient.model.address import Endpoint, IpAddress
from ambient.model.datagrams import DatagramRows, judge_datagram, rows_of_datagrams
from ambient.model.deny import ANY_PORT, Guarded, judge, look_up, refuses
from ambient.model.identity import Identity
from ambient.model.outcome import Connection, Denied
from ambient.model.policy import Authorization, Datagram
from tests.support.deny import SIXTH
from tests.support.policies import ADDRESSES, PORTS, random_connection, random_policies

PASS, SHOT = -1, 2
INTERFACE = 77
"""Of every proven sender, at the node."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A pod at `address` under random policies; `proven` are the senders whose identity is known when they come by
    their own interface."""

    policies: tuple[Authorization, ...]
    address: IpAddress
    senders: tuple[IpAddress, ...]
    proven: Mapping[IpAddress, Identity]
    rows: Mapping[Datagram, DatagramRows]

    def connection(self, sender: IpAddress, port: int, *, own_interface: bool) -> Connection:
        return Connection(sender, self.address, port, self.proven.get(sender) if own_interface else None)

    def denied(self, protocol: Datagram, connection: Connection) -> bool:
        return isinstance(judge_datagram(self.policies, protocol, connection), Denied)

    def denied_by_rows(self, protocol: Datagram, connection: Connection) -> bool:
        """As the program reads them (slowly)."""
        rows, sender = self.rows[protocol], connection.source_ip
        proven = connection.peer is not None and look_up(rows.proven, ANY_PORT, sender) is not None
        return refuses(judge(rows.proven if proven else rows.unproven, connection.destination_port, sender))


def scene(random: Random) -> Scene:
    pool = ADDRESSES if random.random() < 0.6 else SIXTH
    address, *senders = random.sample(pool, len(pool))
    policies = tuple(
        replace(policy, datagrams=frozenset(one for one in Datagram if random.random() < 0.6))
        for policy in random_policies(random, random.choice((0, 1, 2, 3, 5)))
    )
    identities = {ip: random_connection(random).peer for ip in senders if random.random() < 0.5}
    proven = {ip: identity for ip, identity in identities.items() if identity is not None}
    pod = Guarded(Identity("cluster.local", "a", "pod"), policies)
    rows = {one: rows_of_datagrams(pod, address, one, proven) for one in Datagram}
    return Scene(policies, address, tuple(senders), proven, rows)


def packets(one: Scene, random: Random, count: int) -> Iterator[tuple[Datagram, Connection]]:
    for _ in range(count):
        protocol = random.choice(list(Datagram))
        port = 0 if protocol is Datagram.ICMP else random.choice((*PORTS, random.randrange(65_536)))
        yield protocol, one.connection(random.choice(one.senders), port, own_interface=random.random() < 0.7)


def frame(protocol: Datagram, source: Endpoint, destination: Endpoint) -> bytes:
    """From the node's interface to the pod's. Sums are nobody's business here."""
    if protocol is Datagram.UDP:
        number, payload = socket.IPPROTO_UDP, struct.pack("!HHHH", source.port, destination.port, 12, 0) + b"data"
    elif source.ip.version == 4:
        number, payload = socket.IPPROTO_ICMP, struct.pack("!BBHHH", 8, 0, 0, source.port, 1)
    else:
        number, payload = socket.IPPROTO_ICMPV6, struct.pack("!BBHHH", 128, 0, 0, source.port, 1)
    if source.ip.version == 4:
        size = 20 + len(payload)
        header = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0, 64, number, 0) + source.ip.packed + destination.ip.packed
        return bytes(12) + b"\x08\x00" + header + payload
    header = struct.pack("!IHBB", 6 << 28, len(payload), number, 64) + source.ip.packed + destination.ip.packed
    return bytes(12) + b"\x86\xdd" + header + payload


@dataclass
class Program:
    """host_egress, to be run on frames."""

    maps: Maps
    program: int
    numbers: Numbers = field(default_factory=Numbers)

    def tell(self, one: Scene) -> None:
        for sender in one.proven:
            self.maps.pods.put(sender, PodRow(Flag(0), FailMode.OPEN, FailMode.OPEN, 1, INTERFACE))
        self.maps.pods.put(one.address, PodRow(Flag(0), FailMode.OPEN, FailMode.OPEN, 1, INTERFACE + 2))
        for protocol, sides in SIDES.items():
            told = (one.rows[protocol].unproven, one.rows[protocol].proven)
            tables = {
                (one.address, side): deny_rows.enforced(rows, self.numbers)
                for side, rows in zip(sides, told, strict=True)
            }
            assert self.maps.deny.replace({key: rows for key, rows in tables.items() if rows}) == {}

    def forget(self, one: Scene) -> None:
        for ip in (*one.proven, one.address):
            self.maps.pods.delete(ip)
        self.maps.deny.delete([(one.address, side) for sides in SIDES.values() for side in sides])

    def refuses(self, protocol: Datagram, source: Endpoint, destination: Endpoint, *, came_by: int) -> bool:
        verdict, _ = bpfsys.run_once(self.program, frame(protocol, source, destination), came_by=came_by)
        assert verdict in (PASS, SHOT), verdict
        return verdict == SHOT


@contextmanager
def program_of(bpffs: Path) -> Iterator[Program]:
    pinned = next((bpffs / "programs").iterdir())
    with Maps.open(bpffs) as maps, bpfsys.opened(pinned / "host_egress") as program:
        yield Program(maps, program)
