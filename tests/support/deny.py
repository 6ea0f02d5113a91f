"""Random policy sets and flows, and what policy says of each: the yardstick of the rows and of the programs."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from ipaddress import IPv6Address
from random import Random

from ambient.model.address import IpAddress
from ambient.model.decide import dry_run_naive, judge_naive
from ambient.model.deny import Guarded, Rows, of_arriving, of_leaving
from ambient.model.identity import Identity
from ambient.model.outcome import Connection, Denied, DryRun, Effect
from ambient.model.policy import Authorization
from tests.support.policies import ADDRESSES, ADDRESSES_6, PORTS, random_connection, random_policies

SIXTH = tuple(ip for ip in ADDRESSES_6 if isinstance(ip, IPv6Address) and ip.ipv4_mapped is None)
"""Without IPv4 written as IPv6, which no kernel lets in."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A pod under random policies, and the rows of plain text that comes to `address`, or of what `source` opens to it
    from `sources`' first."""

    policies: tuple[Authorization, ...]
    address: IpAddress
    sources: tuple[IpAddress, ...]
    source: Identity | None
    rows: Rows

    def flow(self, random: Random) -> tuple[IpAddress, int]:
        """Where from, and to which port."""
        one = self.sources[0] if self.source is not None else random.choice(self.sources)
        return one, random.choice((*PORTS, random.randrange(65_536)))

    def connection(self, source: IpAddress, port: int) -> Connection:
        return Connection(source, self.address, port, self.source)

    def denied(self, connection: Connection) -> bool:
        return isinstance(judge_naive(self.policies, (), connection), Denied)

    def dry_run(self, connection: Connection) -> tuple[DryRun, ...]:
        return dry_run_naive(self.policies, connection, judge_naive(self.policies, (), connection))


def scene(random: Random, *, arriving: bool) -> Scene:
    pool = ADDRESSES if random.random() < 0.6 else SIXTH
    policies = tuple(random_policies(random, random.choice((0, 1, 2, 3, 5, 8))))
    address, *sources = random.sample(pool, len(pool))
    peer = None
    while not arriving and peer is None:
        peer = random_connection(random).peer
    pod = Guarded(Identity("cluster.local", "a", "pod"), policies)
    rows = of_arriving(pod, address) if peer is None else of_leaving(peer, sources[0], {address: pod})
    return Scene(policies, address, tuple(sources), peer, rows)


def effects(policies: Set[str], effect: Effect) -> set[DryRun]:
    return {DryRun(policy, effect) for policy in policies}
