"""What the director tells a worker first: the node's settings, as far as workers need them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ztunnel.budgets import Budgets
from ztunnel.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """First message to a worker. `trust_domain`, `node`, limits and switches it needs; see ztunnel.config.

    `log_level` is a filter as for /logging. `metrics_series`: traffic series to keep (ztunnel.telemetry.counters).
    """

    node: str
    trust_domain: str
    cluster_id: str
    network: str = ""
    log_format: str = "plain"
    log_level: str = "info"
    ipv6: bool = True
    upstream_resolvers: tuple[str, ...] = ()
    dns_search_domain: str = "cluster.local"
    orig_src: str = ""
    """Speak to applications as the client: "" = where it can be done, "true" = or refuse, "false" = never."""
    metrics_series: int = 2_000
    tuning: Tuning = field(default_factory=Tuning)
    budgets: Budgets = field(default_factory=Budgets)
    policy_info_log: bool = False
    """What policy decides about each connection is logged at level info, not debug."""
