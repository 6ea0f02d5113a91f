"""The workload's network namespace as `ambient join` looks at it before anything is changed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pyroute2 import IPRoute  # type: ignore[import-untyped]

from ambient.errors import InvalidInput, KernelError, Unavailable
from ambient.model.address import IpAddress, parse_ip
from ambient.netns import entered

INTERFACE: Final = "eth0"
_UNIVERSE: Final = 0


def address_of(netns: Path, wanted: str = "") -> IpAddress:
    """The one address of its eth0 (`wanted`: it must be this).

    Raises Unavailable for a namespace that is not there or is our own, InvalidInput where eth0 has no address that
    others can reach, or several: all but one would be outside the mesh.
    """
    try:
        opened = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable("network namespace", str(netns), error.strerror or str(error)) from None
    try:
        if os.fstat(opened).st_ino == os.stat("/proc/thread-self/ns/net").st_ino:
            raise Unavailable("network namespace", str(netns), "is the machine's own: a workload needs one of its own")
        found = _addresses(opened)
    except KernelError as error:
        raise Unavailable("network namespace", str(netns), error.why) from None
    finally:
        os.close(opened)
    if wanted and parse_ip(wanted) not in found:
        raise InvalidInput("address", wanted, f"{INTERFACE} of {netns} has {_listed(found)}")
    if len(found) != 1:
        raise InvalidInput("address", str(netns), f"{INTERFACE} has {_listed(found)}; a workload that joins has one")
    return found[0]


def _addresses(netns_fd: int) -> list[IpAddress]:
    with entered(netns_fd), IPRoute() as route:
        index = route.link_lookup(ifname=INTERFACE)
        found = route.get_addr(index=index[0]) if index else ()
        texts = [one.get_attr("IFA_ADDRESS") for one in found if one["scope"] == _UNIVERSE]
    return sorted(map(parse_ip, texts), key=lambda ip: (ip.version, int(ip)))


def _listed(addresses: Iterable[IpAddress]) -> str:
    return ", ".join(map(str, addresses)) or "no address"
