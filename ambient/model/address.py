"""IP addresses, endpoints, the port table and the marks of the capture contract (Istio ambient's numbers)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from ambient.errors import InvalidInput

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

OUTBOUND_PORT: Final = 15001
PLAINTEXT_PORT: Final = 15006
HBONE_PORT: Final = 15008
DNS_PORT: Final = 15053
ADMIN_PORT: Final = 15000
STATS_PORT: Final = 15020
READY_PORT: Final = 15021
DISCOVERY_PORT: Final = 15012
CONTROL_HTTP_PORT: Final = 15014

_LAST_PORT: Final = 65_535
_PORT_DIGITS: Final = 5

ZTUNNEL_PORTS: Final = frozenset({OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT})
"""Ports that no traffic may be aimed at through the proxy ("illegal ports")."""

PROXY_MARK: Final = 0x539
"""SO_MARK of every socket ztunnel opens in a pod's network namespace."""
LOOP_MARK: Final = 0x53A
"""Mark that the capture program puts on packets it loops to `lo`; a policy route delivers them locally."""
LOOP_TABLE: Final = 100


def canonical(ip: IpAddress) -> IpAddress:
    """The IPv4 address inside an IPv4-mapped IPv6 address, else the address itself."""
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


def parse_ip(text: str) -> IpAddress:
    """Read an address as text; raises InvalidInput. IPv4-mapped forms come back as IPv4."""
    try:
        return canonical(ip_address(text))
    except ValueError as error:
        raise InvalidInput("not an IP address", repr(text), str(error)) from None


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address and a TCP or UDP port (0..65535)."""

    ip: IpAddress
    port: int

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if self.ip.version == 6 else f"{self.ip}:{self.port}"


def port_number(text: str) -> int:
    """A port (1..65535) written in at most five digits; 0 for anything else, however long it is."""
    if not text.isascii() or not text.isdigit() or len(text) > _PORT_DIGITS:
        return 0
    number = int(text)
    return number if number <= _LAST_PORT else 0


def parse_endpoint(text: str) -> Endpoint:
    """Read "ip:port" or "[ip6]:port"; raises InvalidInput."""
    host, separator, digits = text.rpartition(":")
    port = port_number(digits)
    if not separator or not port:
        raise InvalidInput("not an address and port", repr(text), "expected ip:port or [ip6]:port, port 1..65535")
    if host.startswith("[") and host.endswith("]"):
        address = parse_ip(host[1:-1])
    elif ":" in host:
        raise InvalidInput("not an address and port", repr(text), "an IPv6 address needs brackets")
    else:
        address = parse_ip(host)
    return Endpoint(address, port)
