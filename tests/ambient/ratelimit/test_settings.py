"""Settings of the rate limit service: what is wrong is named, and no password is shown."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.ratelimit.settings import read_rate_limit_settings

REDIS = "redis://redis.limits.svc:6379"


def test_redis_is_all_that_has_to_be_said() -> None:
    settings = read_rate_limit_settings({"AMBIENT_REDIS": REDIS})
    assert settings.redis == REDIS
    assert settings.password is None
    assert settings.timeout_s < 0.5


def test_without_redis_it_does_not_begin() -> None:
    with pytest.raises(InvalidInput, match="AMBIENT_REDIS"):
        read_rate_limit_settings({})


@pytest.mark.parametrize("given", ["redis://user:hunter2@host:1", "host:6379", "unix:///x", "redis://", "http://a:1"])
def test_an_address_that_is_none_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_rate_limit_settings({"AMBIENT_REDIS": given})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["AMBIENT_REDIS_PASSWORD", "AMBIENT_RATELIMIT_LISTENN"])
def test_a_setting_that_there_is_none_of_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        read_rate_limit_settings({"AMBIENT_REDIS": REDIS, name: "x"})
