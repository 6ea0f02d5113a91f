"""What a worker is told before anything else. Pure."""

from __future__ import annotations

from ztunnel.config import Config
from ztunnel.ipc.messages import Settings


def settings_for(config: Config, log_level: str) -> Settings:
    """The part of the settings that workers need; `log_level`: the filter as it is now."""
    return Settings(
        node=config.node,
        trust_domain=config.trust_domain,
        cluster_id=config.cluster_id,
        network=config.network,
        log_format=config.log_format,
        log_level=log_level,
        ipv6=config.ipv6,
        upstream_resolvers=config.resolvers,
        dns_search_domain=config.cluster_domain,
        tuning=config.tuning,
        budgets=config.budgets,
        orig_src={None: "", True: "true", False: "false"}[config.orig_src],
        metrics_series=config.metrics_series,
        policy_info_log=config.policy_info_log,
    )
