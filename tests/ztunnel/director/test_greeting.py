"""Every setting of a worker comes from the configuration, the log filter from what holds now."""

from __future__ import annotations

import dataclasses

import pytest

from ztunnel.config import read_config
from ztunnel.director.greeting import settings_for
from ztunnel.ipc.messages import Settings

ENV = {
    "NODE_NAME": "n9",
    "TRUST_DOMAIN": "td",
    "CLUSTER_ID": "c9",
    "NETWORK": "net",
    "LOG_FORMAT": "json",
    "IPV6_ENABLED": "false",
    "AMBIENT_RESOLVERS": "10.0.0.9",
    "CLUSTER_DOMAIN": "domain",
    "ENABLE_ORIG_SRC": "true",
    "AMBIENT_METRICS_SERIES": "77",
    "AUTHZ_POLICY_INFO_LOGGING": "true",
    "KEEPALIVE_TIME": "99s",
}


def test_each_setting_reaches_the_worker() -> None:
    told = settings_for(read_config(ENV), "debug,access=off")
    plain = Settings(node="", trust_domain="", cluster_id="")
    same = [f.name for f in dataclasses.fields(Settings) if getattr(told, f.name) == getattr(plain, f.name)]
    assert same == []
    assert told.log_level == "debug,access=off"


@pytest.mark.parametrize(("given", "told"), [("", ""), ("true", "true"), ("false", "false")])
def test_the_original_source_has_three_states(given: str, told: str) -> None:
    assert settings_for(read_config({"NODE_NAME": "n", "ENABLE_ORIG_SRC": given}), "info").orig_src == told
