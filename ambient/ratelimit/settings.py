"""Settings of the rate limit service's process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ambient.model.address import Endpoint
from ambient.settings import choice, duration, endpoint, integer, optional_path, read_settings, setting, text


def _redis(given: str) -> str:
    """Not what it says where it is wrong: there may be a password in it."""
    if not re.fullmatch(r"rediss?://[^@/\s?#]+(/[0-9]{1,4})?", given):
        raise ValueError("expected redis://HOST:PORT or rediss://HOST:PORT, without a password")
    return given


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitSettings:
    """What `python -m ambient.ratelimit` is told through its environment; times are seconds."""

    listen: Endpoint = setting("AMBIENT_RATELIMIT_LISTEN", endpoint, ":8081")
    http_listen: Endpoint = setting("AMBIENT_RATELIMIT_HTTP_LISTEN", endpoint, ":8080")
    redis: str = setting("AMBIENT_REDIS", _redis)
    username: str = setting("AMBIENT_REDIS_USERNAME", text, "")
    password: Path | None = setting("AMBIENT_REDIS_PASSWORD_FILE", optional_path, "none")
    authorities: Path | None = setting("AMBIENT_REDIS_ROOTS", optional_path, "none")
    """PEM file of who may certify a Redis that is spoken to over TLS; None: the system's."""
    timeout_s: float = setting("AMBIENT_REDIS_TIMEOUT", duration, "250ms")
    """Of each question; proxies wait 0.5 s for us."""
    connections: int = setting("AMBIENT_REDIS_CONNECTIONS", integer(1, 10_000), "64")
    drain_s: float = setting("TERMINATION_DRAIN", duration, "5s")
    log_level: str = setting("LOG_LEVEL", choice("debug", "info", "warning", "error"), "info")
    log_format: str = setting("LOG_FORMAT", choice("plain", "json"), "json")


def read_rate_limit_settings(environment: Mapping[str, str]) -> RateLimitSettings:
    """Raises InvalidInput naming the variable; an unknown one of ours is refused too."""
    return read_settings(RateLimitSettings, environment, closed=("AMBIENT_RATELIMIT_", "AMBIENT_REDIS"))
