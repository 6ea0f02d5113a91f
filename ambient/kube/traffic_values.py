"""Values of a DestinationRule's trafficPolicy, as written by people. What is None (or "", 0, ()) was not given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LARGEST_RING: Final = 65_536
"""Of consistent hashing. Each proxy has the ring of each pool in memory, and makes it anew when endpoints change."""


@dataclass(frozen=True, slots=True)
class HashBy:
    """What sends equal requests to the same endpoint. `kind` is header, cookie, query or source (the client's address).
    `ttl_ms`: of a cookie that the proxy makes where there is none, 0: until the browser ends; None: it makes none."""

    kind: str
    name: str = ""
    path: str = ""
    ttl_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """localityLbSetting. Localities are "region/zone/subzone", "*" any, a part that is left out at the end too.

    `distribute`: from where, and shares of 100 by where to. `failover`: regions, from and to. `priority`: what has to
    be equal, the most important first: region, zone, subzone or node.
    """

    enabled: bool = True
    distribute: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    failover: tuple[tuple[str, str], ...] = ()
    priority: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Balancer:
    """`simple` is Istio's word. `ring`: the smallest ring of consistent hashing; `table`: size of a Maglev table, then
    it takes the place of the ring."""

    simple: str = ""
    hash_by: HashBy | None = None
    ring: int = 0
    table: int = 0
    warmup_ms: int = 0
    spread: Spread | None = None


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Of TCP."""

    probes: int = 0
    time_ms: int = 0
    interval_ms: int = 0


@dataclass(frozen=True, slots=True)
class Pool:
    """connectionPool, tcp and http together."""

    max_connections: int | None = None
    connect_timeout_ms: int | None = None
    keepalive: Keepalive | None = None
    max_duration_ms: int | None = None
    tcp_idle_ms: int | None = None
    max_pending: int | None = None
    max_requests: int | None = None
    requests_per_connection: int | None = None
    max_retries: int | None = None
    http_idle_ms: int | None = None
    max_streams: int | None = None
    use_client_protocol: bool = False
    upgrade: str = ""


@dataclass(frozen=True, slots=True)
class Outliers:
    """outlierDetection. Percentages are 0..100."""

    consecutive_5xx: int | None = None
    gateway_errors: int | None = None
    local_failures: int | None = None
    split_local: bool = False
    interval_ms: int | None = None
    ejection_ms: int | None = None
    max_ejection_percent: int | None = None
    min_health_percent: int | None = None


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """`percent` of the requests under way may be retries, `least` in any case."""

    percent: float = 20.0
    least: int = 3


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What is spoken to endpoints outside of the mesh. `mode` is DISABLE, SIMPLE, MUTUAL or ISTIO_MUTUAL."""

    mode: str = "DISABLE"
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    credential: str = ""
    subject_alt_names: tuple[str, ...] = ()
    sni: str = ""
    insecure: bool = False
    crl: str = ""


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """`ports`: by number what is said of single ports; there every field takes the place of the general one."""

    balancer: Balancer | None = None
    pool: Pool | None = None
    outliers: Outliers | None = None
    tls: ClientTls | None = None
    retry_budget: RetryBudget | None = None
    ports: tuple[tuple[int, TrafficPolicy], ...] = ()
