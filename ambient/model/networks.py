"""Address blocks as numbers: whether an address is in one of very many is a few look-ups, one per prefix length."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from ipaddress import IPv4Address
from typing import Final

from ambient.model.address import IpAddress, IpNetwork

MANY: Final = 8
"""So few blocks are simply tried one after the other."""
_SIXTH: Final = 1 << 128


class Networks(tuple[IpNetwork, ...]):
    """Blocks that are looked up together. Equal to the plain tuple of them, and hashed alike."""

    @cached_property
    def _numbers(self) -> Mapping[int, frozenset[int]]:
        """By shift; made when first asked for."""
        found: dict[int, set[int]] = {}
        for network in self:
            shift, number = block_number(network)
            found.setdefault(shift, set()).add(number)
        return {shift: frozenset(numbers) for shift, numbers in found.items()}

    def cover(self, ip: IpAddress) -> bool:
        """One of them has the address; families are compared strictly."""
        number = address_number(ip)
        return any(number >> shift in numbers for shift, numbers in self._numbers.items())


def address_number(ip: IpAddress) -> int:
    """The address as one number in which no IPv4 block meets an IPv6 block, whatever is shifted out."""
    return int(ip) if isinstance(ip, IPv4Address) else _SIXTH | int(ip)


def block_number(network: IpNetwork) -> tuple[int, int]:
    """(shift, what the number of each of its addresses is after that shift)."""
    shift = network.max_prefixlen - network.prefixlen
    return shift, address_number(network.network_address) >> shift
