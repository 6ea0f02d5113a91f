"""What the tests of nftables capture ask of a pod's namespace, and of a connection."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from ambient.datapath import nft
from ambient.datapath.layout import PodRow
from ambient.datapath.rules import read
from ambient.model.address import IpAddress
from tests.support.capture_world import Place


def is_proxied(client: socket.socket) -> bool:
    """Whether an `App` sees another port than the client's own: somebody between them speaks for it. Reads its
    greeting."""
    _, _, port = client.recv(100).decode().strip().partition(" ")
    assert port, "the server greeted"
    return port != str(client.getsockname()[1])


def rows_of(place: Place) -> Mapping[IpAddress, PodRow]:
    """What the table there says about itself; {} without one."""
    listing = nft.listing(place.netns)
    return {} if listing is None else read(listing).rows


def foreign_table(place: Place) -> None:
    """Somebody else's rules beside ours."""
    nft.put(place.netns, "table inet stranger { chain output { type filter hook output priority 0; accept; }; }\n")
