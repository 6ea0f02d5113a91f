"""Addresses as a worker keeps them: those that come again and again, with text, octets and hash worked out once.

The standard library works all of them out anew each time, in Python, some twenty times for every connection.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from ambient.model.address import IpAddress, parse_ip


class KnownFour(IPv4Address):
    """Equal to any other IPv4Address. `text`: as in a socket name; `host`: as before a port."""

    __slots__ = ("_hashed", "host", "packed", "text")

    version = 4

    def __init__(self, ip: IPv4Address) -> None:
        super().__init__(int(ip))
        self._hashed = hash(ip)
        self.packed = ip.packed  # type: ignore[misc]
        self.text = self.host = str(ip)

    def __hash__(self) -> int:
        return self._hashed


class KnownSix(IPv6Address):
    """Equal to any other IPv6Address without a zone. `text`: as in a socket name; `host`: as before a port."""

    __slots__ = ("_hashed", "host", "packed", "text")

    version = 6

    def __init__(self, ip: IPv6Address) -> None:
        super().__init__(int(ip))
        self._hashed = hash(ip)
        self.packed = ip.packed  # type: ignore[misc]
        self.text = str(ip)
        self.host = f"[{ip}]"

    def __hash__(self) -> int:
        return self._hashed


@lru_cache(maxsize=4096)
def address_of(text: str) -> IpAddress:
    """The address in a socket name; IPv4-mapped ones come out as IPv4, zones are dropped. Raises InvalidInput."""
    ip = parse_ip(text.partition("%")[0])
    return KnownFour(ip) if isinstance(ip, IPv4Address) else KnownSix(ip)


def text_of(ip: IpAddress) -> str:
    """The address as in a socket name."""
    return ip.text if isinstance(ip, (KnownFour, KnownSix)) else str(ip)


def host_of(ip: IpAddress) -> str:
    """The address as before a port."""
    if isinstance(ip, (KnownFour, KnownSix)):
        return ip.host
    return f"[{ip}]" if ip.version == 6 else str(ip)
