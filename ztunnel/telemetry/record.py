"""The record of one connection: opened at accept, closed exactly once, the source of every figure and line about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from ambient.model.address import Endpoint
from ambient.model.outcome import PeerLabels, ServiceLabels
from ztunnel.addresses import host_of
from ztunnel.telemetry.counters import Totals


class Flag(StrEnum):
    """Istio's response flags."""

    NONE = "-"
    DENY = "DENY"
    CONNECT = "CONNECT"
    TLS_FAILURE = "TLS_FAILURE"
    H2_HANDSHAKE_FAILURE = "H2_HANDSHAKE_FAILURE"
    NETWORK_POLICY = "NETWORK_POLICY"
    IDENTITY_ERROR = "IDENTITY_ERROR"
    CERT_REVOKED = "CERT_REVOKED"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a connection failed: flag for metrics, text for the log; reason, policy and detail when it was denied."""

    flag: Flag
    text: str
    reason: str = ""
    policy: str = ""
    detail: str = ""


class Meter(Protocol):
    """The application's side of a relay: octets read from it and given to it so far."""

    taken: int
    given: int


NO_SERVICE: Final = ServiceLabels()
TRACEPARENT_LENGTH: Final = 55
"""Characters of version, trace id, parent id and flags; anything longer or shorter is no trace context to us."""
_HEX: Final = frozenset("0123456789abcdef")


def shown(endpoint: Endpoint) -> str:
    """The endpoint as text; the same as `str`, for addresses that come again and again."""
    return f"{host_of(endpoint.ip)}:{endpoint.port}"


class ConnectionRecord:
    """Facts fill in while the connection is set up. `inbound`: we report as the destination."""

    __slots__ = (
        "app_is_client",
        "counted_received",
        "counted_sent",
        "destination",
        "destination_identity",
        "destination_peer",
        "doubled",
        "failure",
        "hbone_target",
        "hint",
        "inbound",
        "meter",
        "mutual_tls",
        "opened_at",
        "opened_unix",
        "original",
        "pod_uid",
        "service",
        "source",
        "source_identity",
        "source_peer",
        "source_text",
        "totals",
        "traceparent",
        "traffic",
    )

    def __init__(
        self, pod_uid: str, source: Endpoint, destination: Endpoint, *, inbound: bool, now: float, unix: float
    ) -> None:
        self.pod_uid = pod_uid
        self.source = source
        self.source_text = shown(source)
        self.destination = destination
        self.original = destination
        """What the application dialled; coming in, where the connection is led to."""
        self.hbone_target = ""
        self.hint = b""
        """The `forwarded` header that came with its CONNECT."""
        self.doubled = False
        """A tunnel within a gateway's tunnel."""
        self.inbound = inbound
        self.opened_at = now
        self.opened_unix = unix
        self.mutual_tls = False
        self.source_peer: PeerLabels | None = None
        self.destination_peer: PeerLabels | None = None
        self.source_identity = ""
        self.destination_identity = ""
        self.service = NO_SERVICE
        self.meter: Meter | None = None
        self.app_is_client = not inbound
        self.traffic: tuple[str, ...] | None = None
        """The labels it was counted with when it opened."""
        self.totals: Totals | None = None
        self.counted_received = 0
        self.counted_sent = 0
        self.failure: Failure | None = None
        self.traceparent = ""
        """W3C trace context of its CONNECT: what we sent going out, what came with it coming in."""

    @property
    def trace_id(self) -> str:
        """The 32 hex digits of the trace, "" when there is none or what came is no trace context."""
        parts = self.traceparent.split("-")
        return parts[1] if len(parts) == 4 and len(parts[1]) == 32 and set(parts[1]) <= _HEX else ""

    @property
    def protocol(self) -> str:
        """As the config dump calls it."""
        return "DOUBLEHBONE" if self.doubled else "HBONE" if self.hbone_target else "TCP"

    @property
    def asked_host(self) -> str:
        """The service that the client says it dialled (`host` of `forwarded`), "" when it says none."""
        host = self.hint.partition(b"host=")[2].partition(b";")[0].strip(b'"')
        return host.decode("ascii") if host.isascii() else ""

    def octets(self) -> tuple[int, int]:
        """Octets client to server and server to client so far."""
        if self.meter is None:
            return 0, 0
        if self.app_is_client:
            return self.meter.taken, self.meter.given
        return self.meter.given, self.meter.taken
