"""Where nothing of ours goes because somebody who may write in one namespace has named it: what is ours alone where we
are, and where clouds tell machines their secrets. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from ambient.errors import InvalidInput

_NEVER: Final = tuple(
    ip_network(one)
    for one in (
        "0.0.0.0/8",
        "100.100.100.200/32",  # Alibaba Cloud's metadata
        "168.63.129.16/32",  # Azure's
        "192.0.0.192/32",  # Oracle Cloud's
        "fd00:ec2::/32",  # Amazon's
        "fd20:ce::254/128",  # Google's
    )
)
_WITHIN: Final = tuple(ip_network(one) for one in ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96"))
"""IPv6 that stands for the IPv4 address at its end (RFC 6052, 4291 and 2765)."""
_UNICAST: Final = IPv6Network("2000::/3")
"""What IANA gives away of IPv6 for the Internet; all else is of whoever uses it, or for later."""
_LOCAL: Final = tuple(
    ip_network(one)
    for one in (
        "192.0.0.0/24",  # of protocols (RFC 6890); which of it is global is another thing in each version of Python
        "2001::/23",  # the same of IPv6
        "3fff::/20",  # documentation (RFC 9637)
        "5f00::/16",  # segment routing (RFC 9602)
    )
)
"""Of whoever uses them, as private addresses are, whatever `is_global` says."""
_NAMES: Final = re.compile(
    r"(.*\.)?(localhost|localdomain|ip6-localhost|ip6-loopback)"
    r"|metadata|metadata\.(google\.internal|goog|tencentyun\.com)|instance-data(\.ec2\.internal)?"
    # Resolvers take what ends like this for an address, in ways that the address above is not written.
    r"|(.*\.)?(\d+|0x[0-9a-f]*)"
)


def forbidden(address: str) -> str:
    """Why an address is not to be dialled, "" when it may be. Pure."""
    found = _plain(ip_address(address.partition("%")[0]))
    for kind in ("loopback", "link_local", "multicast", "unspecified"):
        if getattr(found, f"is_{kind}"):
            return f"{address} is a {kind.replace('_', '-')} address"
    if any(found in one for one in _NEVER):
        return f"{address} is an address that nobody is sent to"
    return ""


def _plain(found: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(found, IPv4Address) or found.is_loopback or found.is_unspecified:
        return found
    inner = found.ipv4_mapped or found.sixtofour
    if inner is None and any(found in one for one in _WITHIN):
        inner = IPv4Address(int(found) & 0xFFFFFFFF)
    return inner or found


@lru_cache(maxsize=65_536)
def nowhere(host: str) -> bool:
    """Whether an endpoint, an address or a name, is none that a proxy may be sent to by those who name endpoints."""
    try:
        return bool(forbidden(host))
    except ValueError:
        return _NAMES.fullmatch(host.lower().rstrip(".")) is not None


def nowhere_below(domain: str) -> bool:
    """Whether what ends with a domain ("example.com") is always such an endpoint: an address, or the machine itself. A
    resolver does not ask anybody for these."""
    return nowhere(f"x.{domain}")


@dataclass(frozen=True, slots=True)
class Reach:
    """Where names may lead that clients choose: to addresses of the whole Internet and of `networks`, but for those of
    `without`. All others are somebody's own: perhaps the cluster's."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    without: tuple[IPv4Network | IPv6Network, ...] = ()

    def refusal(self, address: str) -> str:
        """Why an address is not to be dialled, "" when it may be."""
        if why := forbidden(address):
            return why
        found = _plain(ip_address(address.partition("%")[0]))
        if any(found in one for one in self.without):
            return f"{address} is in a network that names are not to lead to"
        if any(found in one for one in self.networks):
            return ""
        unicast = isinstance(found, IPv4Address) or found in _UNICAST
        if not (found.is_global and unicast) or any(found in one for one in _LOCAL):
            return f"{address} is no address of the Internet, and in no network that names may lead to"
        return ""


def read_reach(text: str) -> Reach:
    """Networks with commas between them, "!" before those that names are not to lead to; raises InvalidInput."""
    networks: list[IPv4Network | IPv6Network] = []
    without: list[IPv4Network | IPv6Network] = []
    for word in filter(None, (one.strip() for one in text.split(","))):
        try:
            network = ip_network(word.removeprefix("!").strip(), strict=False)
        except ValueError:
            raise InvalidInput("networks", repr(word[:60]), "is no network") from None
        (without if word.startswith("!") else networks).append(network)
    return Reach(tuple(networks), tuple(without))
