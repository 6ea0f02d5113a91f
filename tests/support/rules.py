"""What the tests of nftables capture ask of a pod's namespace, and of a connection."""

from __future__ import annotations

import socket
from collections.abc import Mapping

from ambient.datapath import nft, pod_net
from ambient.datapath.layout import PodRow
from ambient.datapath.rules import read
from ambient.model.address import LOOP_MARK, IpAddress
from tests.support.agent_lab import AgentLab
from tests.support.capture_world import Place, run


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


def routes(lab: AgentLab, place: Place) -> str:
    inside = ("nsenter", f"--net=/run/netns/{lab.world.prefix}-{place.name}")
    return run(*inside, "ip", "rule") + run(*inside, "ip", "-6", "rule")


def untouched(lab: AgentLab, place: Place) -> bool:
    """Nothing of ours is left of a pod, nor of the node where it was the last."""
    return (
        not nft.is_there(place.netns)
        and hex(LOOP_MARK) not in routes(lab, place)
        and pod_net.observe(place.netns) == pod_net.PodNet("0")
    )


def remembered_s(lab: AgentLab, place: Place) -> set[str]:
    """How long conntrack there knows a connection that one side has ended."""
    states = ("close_wait", "fin_wait", "last_ack")
    inside = ("nsenter", f"--net=/run/netns/{lab.world.prefix}-{place.name}")
    return {run(*inside, "cat", f"/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{one}").strip() for one in states}
