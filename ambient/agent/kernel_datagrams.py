"""Keeps the kernel's rows of policy for UDP and ICMP up with what discovery has told.

Made anew whenever policies or pods change and no thread is needed: only policies that name these protocols count. What
the kernel does not take leaves the last complete table. Rows of a pod whose policies are not known stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ambient.agent.enrol import PodTarget
from ambient.datapath import deny_rows
from ambient.datapath.deny import DenyRow, Table
from ambient.datapath.deny_rows import Numbers
from ambient.datapath.layout import Side
from ambient.model.address import IpAddress
from ambient.model.datagrams import DatagramRows, rows_of_datagrams
from ambient.model.deny import Guarded
from ambient.model.identity import Identity
from ambient.model.policy import Authorization, Datagram

SIDES: Final[Mapping[Datagram, tuple[Side, Side]]] = {
    Datagram.UDP: (Side.UDP_IN, Side.UDP_PROVEN),
    Datagram.ICMP: (Side.ICMP_IN, Side.ICMP_PROVEN),
}
"""For anybody, and for those whose identity is proven."""

NO_INTERFACES: Final[Mapping[str, int]] = {}

_Made = tuple[tuple[Authorization, ...], tuple[tuple[IpAddress, Identity], ...]]


def judged_as(pod: PodTarget, interfaces: Mapping[str, int]) -> tuple[IpAddress, ...]:
    """The addresses under which the kernel looks for the pod's tables: its own, and for what comes to it by another one
    (link-local, a broadcast, a group) the number of the node's end of its veth (`interfaces`: by uid) as an address."""
    number = interfaces.get(pod.uid)
    return (*pod.addresses, IPv4Address(number), IPv6Address(number)) if number else pod.addresses


@dataclass(frozen=True, slots=True)
class Told:
    """`tables` to be put, together or (of one pod and protocol) not at all; `gone` to be taken away."""

    tables: Mapping[Table, list[DenyRow]] = field(default_factory=dict)
    gone: tuple[Table, ...] = ()


class Datagrams:
    """Decides what is to be told; `note` what was."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._made: dict[tuple[IpAddress, Datagram], _Made] = {}

    def plan(
        self,
        known: Collection[tuple[PodTarget, Guarded]],
        kept: Collection[IpAddress],
        there: Iterable[Table],
        interfaces: Mapping[str, int] = NO_INTERFACES,
    ) -> Told:
        """`kept`: what pods are judged as of which nothing is known now; `there`: every table that the kernel has."""
        proven = tuple((ip, guarded.identity) for pod, guarded in known for ip in pod.addresses)
        tables: dict[Table, list[DenyRow]] = {}
        wanted: set[Table] = set()
        for pod, guarded in known:
            for ip in judged_as(pod, interfaces):
                for protocol, sides in SIDES.items():
                    asked = tuple(policy for policy in guarded.policies if protocol in policy.datagrams)
                    if not asked or guarded.missing:
                        if guarded.missing:
                            wanted |= {(ip, side) for side in sides}
                        continue
                    wanted |= {(ip, side) for side in sides}
                    if self._made.get((ip, protocol)) != (asked, proven):
                        rows = rows_of_datagrams(guarded, ip, protocol, dict(proven))
                        tables |= self._tables(ip, sides, rows)
                        self._made[ip, protocol] = (asked, proven)
        ours = {side for sides in SIDES.values() for side in sides}
        gone = tuple(t for t in there if t[1] in ours and t not in wanted and t[0] not in kept)
        for key in [(ip, protocol) for ip, protocol in self._made if (ip, SIDES[protocol][0]) not in wanted]:
            if key[0] not in kept:
                del self._made[key]
        return Told(tables, gone)

    def forget(self, refused: Iterable[Table]) -> None:
        """The kernel did not take these: they are made again."""
        for ip, side in refused:
            for protocol, sides in SIDES.items():
                if side in sides:
                    self._made.pop((ip, protocol), None)

    def _tables(self, ip: IpAddress, sides: tuple[Side, Side], rows: DatagramRows) -> dict[Table, list[DenyRow]]:
        told = (rows.unproven, rows.proven)
        return {(ip, side): deny_rows.enforced(its, self._numbers) for side, its in zip(sides, told, strict=True)}
