"""Flows as the kernel tells and tallies them, for tests without one."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from ambient.datapath.events import ToldFlow
from ambient.datapath.layout import End, Path
from ambient.datapath.tallies import Line
from ambient.model.address import Endpoint, IpAddress
from ambient.model.workload import Workload

CLIENT, SERVER = ip_address("10.0.0.5"), ip_address("10.0.0.6")
WORKLOADS = {
    CLIENT: Workload(uid="web", name="web-1", namespace="shop", service_account="web"),
    SERVER: Workload(uid="db", name="db-1", namespace="data", service_account="db"),
}


def flow(end: End = End.ORDERLY, path: Path = Path.DIRECT, *, arriving: bool = False) -> ToldFlow:
    """From port 4000 of CLIENT to port 80 of SERVER, from second 3 to second 5."""
    return ToldFlow(
        time_s=5.0,
        source=Endpoint(CLIENT, 4000),
        destination=Endpoint(SERVER, 80),
        protocol=socket.IPPROTO_TCP,
        arriving=arriving,
        path=path,
        end=end,
        opened_s=3.0,
        bytes_sent=10,
        bytes_received=20,
        packets_sent=3,
        packets_received=4,
        retransmitted=1,
        rtt_us=250,
    )


def line(
    source: IpAddress = CLIENT,
    destination: IpAddress = SERVER,
    *,
    port: int = 80,
    protocol: int = socket.IPPROTO_TCP,
    end: End = End.NONE,
    arriving: bool = False,
) -> Line:
    """One flow that sent 10 bytes in 2 packets and received 5 in one."""
    return Line(
        source,
        destination,
        port,
        protocol,
        arriving,
        Path.DIRECT,
        end,
        flows=1,
        bytes_sent=10,
        bytes_received=5,
        packets_sent=2,
        packets_received=1,
        rtt_us=100,
        rtts=1,
    )
