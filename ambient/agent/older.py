"""Connections that were open before a pod joined: which they are, which still live, which policy forbids.

Pure over socket listings of the pod's network namespace (`ambient.datapath.sockets`); ends nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from ambient.agent.journal import OlderConnection
from ambient.datapath.sockets import OPEN_STATES, TcpSocket, TcpState
from ambient.model.address import PROXY_MARK, Endpoint, IpAddress, parse_endpoint
from ambient.model.outcome import Connection, Denied, Verdict


@dataclass(frozen=True, slots=True)
class Live:
    """An older connection that is still open, with the socket that is its end inside the pod."""

    connection: OlderConnection
    socket: TcpSocket

    @property
    def state(self) -> str:
        return self.socket.state.name


def find_older(
    sockets: Iterable[TcpSocket], addresses: Collection[IpAddress], ephemeral: range
) -> tuple[OlderConnection, ...]:
    """The connections of a pod that do not go through ztunnel, from a listing that includes listeners.

    Left out: ztunnel's own sockets (by mark), both ends of what it relays (the twin of such a socket lives in the same
    namespace) and what stays inside the pod. A connection counts as inbound when somebody listens on its local port,
    or when that port is outside the range from which clients draw theirs.
    """
    all_sockets = list(sockets)
    pairs = {(s.local, s.remote) for s in all_sockets if s.state in OPEN_STATES}
    listening = {s.local.port for s in all_sockets if s.state is TcpState.LISTEN}
    found = [
        OlderConnection(
            cookie=s.cookie,
            local=str(s.local),
            remote=str(s.remote),
            inbound=s.local.port in listening or s.local.port not in ephemeral,
        )
        for s in all_sockets
        if s.state in OPEN_STATES
        and s.mark != PROXY_MARK
        and s.local.ip in addresses
        and s.remote.ip not in addresses
        and (s.remote, s.local) not in pairs
    ]
    return tuple(sorted(found, key=lambda c: (c.local, c.remote, c.cookie)))


def count_proxied(sockets: Sequence[TcpSocket]) -> int:
    """How many of the application's connections ztunnel relays now: its sockets whose twin is the application's."""
    own = {(s.local, s.remote) for s in sockets if s.state in OPEN_STATES and s.mark == PROXY_MARK}
    return sum(1 for s in sockets if s.state in OPEN_STATES and s.mark != PROXY_MARK and (s.remote, s.local) in own)


def still_open(older: Iterable[OlderConnection], sockets: Iterable[TcpSocket]) -> list[Live]:
    by_cookie = {s.cookie: s for s in sockets if s.state in OPEN_STATES}
    return [Live(c, by_cookie[c.cookie]) for c in older if c.cookie in by_cookie]


def as_judged(connection: OlderConnection) -> Connection:
    """An inbound older connection as policy sees it: plaintext, without an identity."""
    local: Endpoint = parse_endpoint(connection.local)
    return Connection(
        source_ip=parse_endpoint(connection.remote).ip, destination_ip=local.ip, destination_port=local.port
    )


def forbidden(
    older: Iterable[OlderConnection], judge: Callable[[Connection], Verdict]
) -> list[tuple[OlderConnection, Denied]]:
    """The inbound ones that policy would refuse if they were opened now."""
    result = []
    for connection in older:
        if connection.inbound:
            verdict = judge(as_judged(connection))
            if isinstance(verdict, Denied):
                result.append((connection, verdict))
    return result
