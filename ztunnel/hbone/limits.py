"""What we advertise, and how much of anything a peer may make us do before the connection is ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes in octets, times in seconds. Defaults are Istio ztunnel's advertised values where it has one, but for the
    window of a stream: what a client of ours can open at once, all stalled, stays below `max_held`, so that stalled
    streams never shut the connection for their neighbours."""

    stream_window: int = 512 << 10
    """What every stream begins with, and so what one that stalls may hold."""
    grown_window: int = 4 << 20
    """To here grows the window of a stream whose octets are always taken at once."""
    growth: int = 12 << 20
    """How far the windows of a connection's streams may have grown, in all."""
    connection_window: int = 16 << 20
    max_frame: int = 1 << 20
    max_header_list: int = 65_536
    max_streams: int = 200
    """Concurrent streams that we accept as a server, and that we open at most as a client."""

    max_held: int = 64 << 20
    """Received but not consumed octets of one connection at which its connection window is no longer reopened."""

    max_continuations: int = 32
    max_reset_debt: int = 200
    """Streams reset by the peer before they were answered, not made good by answered ones ("rapid reset")."""

    max_control_per_tick: int = 1_000
    """PING, SETTINGS, empty DATA, PRIORITY, unknown frames and the like between two ticks (one second); and as many
    window updates beside those that our own DATA is the cause of."""

    ping_after: float = 10.0
    ping_timeout: float = 20.0


SERVER = Limits()
CLIENT = Limits(max_header_list=16_384, max_streams=100)


def violated(reason: str) -> str:
    """The counter of peers that broke the protocol or a limit, by reason."""
    return f'hbone_violations{{reason="{reason}"}}'


class Violation(Exception):
    """The peer broke the protocol or a limit: `reason` is the label of the metric that counts it ("" counts nothing),
    `code` is told to the peer, unless it is `silent`: nobody is there to hear it."""

    def __init__(self, code: int, reason: str, text: str, *, silent: bool = False) -> None:
        super().__init__(text)
        self.silent = silent
        self.code = code
        self.reason = reason
        self.text = text
