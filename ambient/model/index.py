"""Multi-maps that keep insertion order and forget empty keys; building blocks of `Mesh`."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Generic, TypeVar

from ambient.model.address import IpAddress

K = TypeVar("K")


class NameIndex(Generic[K]):
    """key -> names. Nearly every key has one name, which is kept as such: a container each would cost more than all
    the rest of an entry."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[K, str | dict[str, None]] = {}

    def add(self, key: K, name: str) -> None:
        there = self._names.setdefault(key, name)
        if isinstance(there, dict):
            there[name] = None
        elif there != name:
            self._names[key] = {there: None, name: None}

    def discard(self, key: K, name: str) -> None:
        there = self._names.get(key)
        if isinstance(there, dict):
            there.pop(name, None)
            if len(there) == 1:
                (self._names[key],) = there
        elif there == name:
            del self._names[key]

    def __bool__(self) -> bool:
        return bool(self._names)

    def names(self, key: K) -> tuple[str, ...]:
        there = self._names.get(key)
        if there is None:
            return ()
        return tuple(there) if isinstance(there, dict) else (there,)


class NetworkIndex:
    """Address of a network -> names. One map per network: a pair as the key would cost more than the entry."""

    __slots__ = ("_networks",)

    def __init__(self) -> None:
        self._networks: dict[str, NameIndex[IpAddress]] = {}

    def add(self, network: str, ip: IpAddress, name: str) -> None:
        self._networks.setdefault(network, NameIndex()).add(ip, name)

    def discard(self, network: str, ip: IpAddress, name: str) -> None:
        there = self._networks.get(network)
        if there is not None:
            there.discard(ip, name)
            if not there:
                del self._networks[network]

    def names(self, network: str, ip: IpAddress) -> tuple[str, ...]:
        there = self._networks.get(network)
        return there.names(ip) if there is not None else ()


class BlockIndex:
    """Address blocks of a network -> names; a lookup costs one probe per prefix length in use."""

    __slots__ = ("_lengths", "_names")

    def __init__(self) -> None:
        self._names: NameIndex[tuple[str, int, int, int]] = NameIndex()
        self._lengths: dict[tuple[str, int], dict[int, int]] = {}

    def add(self, network: str, ip: IpAddress, length: int, name: str) -> None:
        self._names.add(_block(network, ip, length), name)
        lengths = self._lengths.setdefault((network, ip.version), {})
        lengths[length] = lengths.get(length, 0) + 1

    def discard(self, network: str, ip: IpAddress, length: int, name: str) -> None:
        self._names.discard(_block(network, ip, length), name)
        lengths = self._lengths.get((network, ip.version), {})
        if length in lengths:
            lengths[length] -= 1
            if not lengths[length]:
                del lengths[length]

    def matching(self, network: str, ip: IpAddress) -> Iterator[tuple[int, str]]:
        """(prefix length, name) of every block that holds the address, longest prefix first."""
        for length in sorted(self._lengths.get((network, ip.version), ()), reverse=True):
            for name in self._names.names(_block(network, ip, length)):
                yield length, name


def _block(network: str, ip: IpAddress, length: int) -> tuple[str, int, int, int]:
    return network, ip.version, length, int(ip_network((ip, length), strict=False).network_address)
