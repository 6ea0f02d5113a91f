"""The addresses of a lab, derived from its index: no two labs on a machine share any. Pure arithmetic.

Lab i (0..63): pods 10.(64+i).<node>.0/24, nodes 10.(128+i).0.<node>, Services 10.(192+i).0.0/16; in IPv6 the same
inside fdab:0:<i>::/48. Nothing of this is routed outside the lab's own network namespaces.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import count
from typing import Final

from ambient.errors import Refused
from ambient.model.address import IpAddress, IpNetwork

MAX_LABS: Final = 64
MAX_NODES: Final = 250
_SIX: Final = int(IPv6Address("fdab::")) >> 112
_CONTROL_HOST: Final = 0xFF02
_DNS_HOST: Final = 10


@dataclass(frozen=True, slots=True)
class Dual:
    """The same thing in both families."""

    v4: IPv4Address
    v6: IPv6Address

    def both(self) -> tuple[IPv4Address, IPv6Address]:
        return self.v4, self.v6


@dataclass(frozen=True, slots=True)
class DualNetwork:
    v4: IPv4Network
    v6: IPv6Network

    def both(self) -> tuple[IPv4Network, IPv6Network]:
        return self.v4, self.v6

    def __contains__(self, address: IpAddress) -> bool:
        return address in (self.v4 if address.version == 4 else self.v6)


@dataclass(frozen=True, slots=True)
class Plan:
    """The address plan of the lab with this index (0..63)."""

    index: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < MAX_LABS:
            raise Refused("no address range is left", f"lab index {self.index}", f"at most {MAX_LABS} labs at a time")

    def _six(self, subnet: int, host: int) -> IPv6Address:
        return IPv6Address((_SIX << 112) | (self.index << 80) | (subnet << 64) | host)

    @property
    def underlay(self) -> DualNetwork:
        """What nodes and the control plane share."""
        return DualNetwork(IPv4Network(f"10.{128 + self.index}.0.0/16"), IPv6Network((self._six(0xFFFE, 0), 64)))

    @property
    def services(self) -> DualNetwork:
        return DualNetwork(IPv4Network(f"10.{192 + self.index}.0.0/16"), IPv6Network((self._six(0xFFFF, 0), 112)))

    @property
    def dns(self) -> Dual:
        """Where every node's DNS server answers (the kube-dns ClusterIP)."""
        return Dual(self.services.v4[_DNS_HOST], self.services.v6[_DNS_HOST])

    @property
    def control(self) -> Dual:
        return Dual(self.underlay.v4[_CONTROL_HOST], self.underlay.v6[_CONTROL_HOST])

    def node(self, number: int) -> Dual:
        """A node's own address. Numbers are 1..250."""
        return Dual(self.underlay.v4[number], self.underlay.v6[number])

    def pods(self, number: int) -> DualNetwork:
        """A node's pod range."""
        return DualNetwork(IPv4Network(f"10.{64 + self.index}.{number}.0/24"), IPv6Network((self._six(number, 0), 64)))

    def gateway(self, number: int) -> IPv4Address:
        """The node's address as its pods see it (IPv6 uses fe80::1)."""
        return self.pods(number).v4[1]

    def free_pod_address(self, number: int, taken: Collection[IpAddress]) -> Dual:
        """The first pair of addresses with the same host number that nobody has; raises Refused when all are taken."""
        pods = self.pods(number)
        for host in range(2, 255):
            pair = Dual(pods.v4[host], pods.v6[host])
            if pair.v4 not in taken and pair.v6 not in taken:
                return pair
        raise Refused("no address is left", str(pods.v4), "all 253 pod addresses of the node are taken")

    def free_service_address(self, taken: Collection[IpAddress]) -> Dual:
        """As for pods; the first 256 are left for fixed addresses."""
        services = self.services
        for host in range(256, 65535):
            pair = Dual(services.v4[host], services.v6[host])
            if pair.v4 not in taken and pair.v6 not in taken:
                return pair
        raise Refused("no address is left", str(services.v4), "all Service addresses are taken")

    def node_number(self, cidrs: Collection[str]) -> int:
        """The number of the node that has these pod ranges; raises Refused when they are not of this lab."""
        for number in range(1, MAX_NODES + 1):
            if str(self.pods(number).v4) in cidrs:
                return number
        raise Refused("unknown pod range", ", ".join(cidrs), "not a range of this lab")


def free_index(taken: Collection[int]) -> int:
    """The lowest lab index nobody has; raises Refused when all are taken."""
    index = next(_missing(taken, 0))
    return Plan(index).index


def free_node_number(taken: Collection[int]) -> int:
    """The lowest node number nobody has; raises Refused when all are taken."""
    number = next(_missing(taken, 1))
    if number > MAX_NODES:
        raise Refused("no node is left", f"node {number}", f"at most {MAX_NODES} nodes in a lab")
    return number


def _missing(taken: Collection[int], start: int) -> Iterator[int]:
    return (number for number in count(start) if number not in taken)


def contains(network: IpNetwork, address: IpAddress) -> bool:
    """Membership that is False, not an error, across families."""
    return network.version == address.version and address in network
