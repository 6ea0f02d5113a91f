"""Where in a pod a tunnel's request leads: which port, by which address, and with which words first (interop 1.6, 1.7).

Pure: what the pod's policy does not say is asked of the director by whoever calls.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from ambient.errors import InvalidInput
from ambient.model.address import ZTUNNEL_PORTS, Endpoint, IpAddress, parse_endpoint, port_number
from ambient.model.workload import TunnelPreamble
from ztunnel.ipc.authorities import AuthorityAnswer
from ztunnel.ipc.messages import PodPolicy
from ztunnel.telemetry.record import Failure, Flag

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_VERSION_2_PROXY: Final = 0x21
_TCP4, _TCP6 = 0x11, 0x21
_IDENTITY_TLV: Final = 0xD0
_LONGEST_NAME: Final = 253
"""Characters of a host name (RFC 1035 section 2.3.4). What is asked of the director is remembered, there and here: a
peer must not choose how much that is."""
_LOOPBACK: Final[dict[int, IpAddress]] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}


@dataclass(frozen=True, slots=True)
class Aim:
    """`judged`: the pod's address and the final port, which policy judges. `dial`: where the application is asked.
    `said`: what the client asked for, to be told in a PROXY header first; None: no header."""

    judged: Endpoint
    dial: Endpoint
    said: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Miss:
    """It leads nowhere: the status of the answer, and why."""

    status: int
    failure: Failure


def take_aim(
    text: str, local: IpAddress, policy: PodPolicy, answer: AuthorityAnswer | None, *, loopback: bool = True
) -> Aim | Miss | None:
    """Where `text` leads in the pod whose address is `local`; None: ask the director and come again with its answer.

    `loopback`: an application tunnel with a PROXY header is dialled there.
    """
    tunnel = policy.application_tunnel
    proxied = tunnel is not None and tunnel.protocol is TunnelPreamble.PROXY
    # What is remembered of texts must not be of any size: a peer chooses them.
    asked = _endpoint(text) if len(text) <= _LONGEST_NAME else None
    if asked is not None:
        if asked.ip != local and tunnel is None:
            if policy.fronts and answer is None:
                return None
            if answer is None or not answer.port:
                return _miss(400, f"ip mismatch: {asked.ip} asked of {local}", "ip-mismatch")
        port, said = asked.port, asked
    else:
        host, _, service_port = text.rpartition(":")
        number = port_number(service_port)
        if not number or not _hostname(host):
            return _miss(400, f"authority not understood: {text[:_LONGEST_NAME]!r}", "bad-request")
        port = 0 if proxied else _own_port(policy, host, service_port)
        if not port and (tunnel is not None or policy.fronts):
            if answer is None:
                return None
            port = answer.port
        if not port:
            return _miss(503, f"no such service port here: {text}", "no-service-port")
        if proxied and (answer is None or answer.address is None):
            return _miss(503, f"no address stands for {host}", "no-service-address")
        said = Endpoint(answer.address if answer is not None and answer.address else local, number)
    if tunnel is not None and tunnel.port:
        port = tunnel.port
    if port in ZTUNNEL_PORTS:
        return _miss(503, f"refused: {port} is a port of ztunnel", "illegal-port")
    judged = Endpoint(local, port)
    if not proxied:
        return Aim(judged, judged)
    return Aim(judged, Endpoint(_LOOPBACK[local.version], port) if loopback else judged, said)


def proxy_header(source: Endpoint, destination: Endpoint, identity: str) -> bytes:
    """A PROXY protocol header, version 2 (command PROXY, stream), that tells the application who calls and for what.

    `identity` travels as text in a TLV of Istio's. Addresses of different families are all written as IPv6.
    """
    if source.ip.version == destination.ip.version == 4:
        family, ips = _TCP4, source.ip.packed + destination.ip.packed
    else:
        family, ips = _TCP6, _as_six(source.ip) + _as_six(destination.ip)
    rest = ips + struct.pack(">HH", source.port, destination.port)
    if identity:
        value = identity.encode("utf-8", "replace")
        rest += struct.pack(">BH", _IDENTITY_TLV, len(value)) + value
    return _SIGNATURE + struct.pack(">BBH", _VERSION_2_PROXY, family, len(rest)) + rest


def _as_six(ip: IpAddress) -> bytes:
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def _miss(status: int, text: str, reason: str) -> Miss:
    return Miss(status, Failure(Flag.CONNECT, text, reason))


def _hostname(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and text.isascii() and text.replace("-", "").replace(".", "").isalnum()


def _own_port(policy: PodPolicy, host: str, service_port: str) -> int:
    for hostname, port, target in policy.service_ports:
        if hostname == host and str(port) == service_port:
            return target
    return 0


@lru_cache(maxsize=1024)
def _endpoint(text: str) -> Endpoint | None:
    try:
        return parse_endpoint(text)
    except InvalidInput:
        return None
