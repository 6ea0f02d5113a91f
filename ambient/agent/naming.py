"""Flow records of what the kernel told of single flows: addresses become pods and identities. Pure.

An address names a workload, it proves none: the identity is told of the pod of this node only, whose interface it was.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ambient.datapath.events import ToldFlow
from ambient.datapath.layout import End, Path
from ambient.flows.record import Event, Flow
from ambient.model.address import IpAddress
from ambient.model.workload import Workload

WorkloadAt = Callable[[IpAddress], Workload | None]

PROTOCOLS: Final[Mapping[int, str]] = MappingProxyType(
    {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp", socket.IPPROTO_ICMPV6: "icmp"}
)
_WAYS: Final[Mapping[Path, str]] = MappingProxyType(
    {
        Path.DIRECT: "not by ztunnel",
        Path.CAPTURED: "given to ztunnel",
        Path.TUNNEL: "ztunnel's tunnel",
        Path.PASSTHROUGH: "ztunnel to or from outside the mesh",
    }
)


def protocol_name(number: int) -> str:
    return PROTOCOLS.get(number, str(number))


def names_of(source: Workload | None, destination: Workload | None, *, arriving: bool) -> dict[str, Any]:
    """The fields of a Flow that say who it is."""
    return {
        "source_pod": "" if source is None else source.name,
        "source_namespace": "" if source is None else source.namespace,
        "source_principal": "" if source is None or arriving else str(source.identity),
        "destination_pod": "" if destination is None else destination.name,
        "destination_namespace": "" if destination is None else destination.namespace,
        "destination_principal": str(destination.identity) if destination is not None and arriving else "",
    }


def record_of(one: ToldFlow, node: str, epoch: float, workload: WorkloadAt) -> Flow:
    """`epoch`: when the monotonic clock was at nought, in seconds since 1970."""
    return Flow(
        event=event_of(one.end),
        time_unix=one.time_s + epoch,
        node=node,
        direction="inbound" if one.arriving else "outbound",
        source=str(one.source),
        destination=str(one.destination),
        **names_of(workload(one.source.ip), workload(one.destination.ip), arriving=one.arriving),
        security="mutual_tls" if one.path is Path.TUNNEL else "unknown",
        reason="" if one.end in (End.NONE, End.ORDERLY) else one.end.name.lower(),
        detail=_WAYS[one.path],
        bytes_sent=one.bytes_sent,
        bytes_received=one.bytes_received,
        duration_ms=int((one.time_s - one.opened_s) * 1000),
        packets_sent=one.packets_sent,
        packets_received=one.packets_received,
        retransmits=one.retransmitted,
        rtt_us=one.rtt_us,
        protocol=protocol_name(one.protocol),
    )


def event_of(end: End) -> Event:
    if end is End.NONE:
        return Event.OPENED
    return Event.CLOSED if end is End.ORDERLY else Event.FAILED
