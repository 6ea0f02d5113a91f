"""Settings of tunnels and sockets: Istio's names, Istio's defaults, and refusal by name."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ztunnel.config import read_config
from ztunnel.hbone.limits import CLIENT, SERVER
from ztunnel.tuning import Tuning


def test_defaults_are_istios() -> None:
    tuning = read_config({}).tuning
    assert tuning == Tuning()
    assert (tuning.stream_window, tuning.connection_window, tuning.frame_size) == (4_194_304, 16_777_216, 1_048_576)
    assert (tuning.pool_streams, tuning.pool_idle_s) == (100, 300)
    assert (tuning.keepalive, tuning.keepalive_idle_s, tuning.keepalive_interval_s) == (True, 180, 180)
    assert (tuning.keepalive_probes, tuning.user_timeout, tuning.user_timeout_ms) == (9, False, 0)
    assert tuning.limits(client=True) == CLIENT
    assert tuning.limits(client=False) == SERVER


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("HTTP2_STREAM_WINDOW_SIZE", "1048576", "stream_window", 1 << 20),
        ("HTTP2_CONNECTION_WINDOW_SIZE", "2Mi", "connection_window", 2 << 20),
        ("HTTP2_FRAME_SIZE", "65536", "frame_size", 65_536),
        ("POOL_MAX_STREAMS_PER_CONNECTION", "7", "pool_streams", 7),
        ("POOL_UNUSED_RELEASE_TIMEOUT", "1m30s", "pool_idle_s", 90),
        ("KEEPALIVE_ENABLED", "false", "keepalive", False),
        ("KEEPALIVE_TIME", "10s", "keepalive_idle_s", 10),
        ("KEEPALIVE_INTERVAL", "5s", "keepalive_interval_s", 5),
        ("KEEPALIVE_RETRIES", "3", "keepalive_probes", 3),
        ("USER_TIMEOUT_ENABLED", "true", "user_timeout", True),
        ("LOCALHOST_APP_TUNNEL", "false", "local_app_tunnel", False),
        ("ENABLE_RESPONSE_BAGGAGE", "false", "response_baggage", False),
    ],
)
def test_each_setting_has_its_variable(name: str, value: str, field: str, expected: object) -> None:
    tuning = read_config({name: value}).tuning
    assert getattr(tuning, field) == expected
    assert tuning != Tuning()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP2_STREAM_WINDOW_SIZE", "1000"),
        ("HTTP2_STREAM_WINDOW_SIZE", "4294967296"),
        ("HTTP2_CONNECTION_WINDOW_SIZE", "many"),
        ("HTTP2_FRAME_SIZE", "100"),
        ("HTTP2_FRAME_SIZE", "16777216"),
        ("POOL_MAX_STREAMS_PER_CONNECTION", "0"),
        ("POOL_UNUSED_RELEASE_TIMEOUT", "soon"),
        ("KEEPALIVE_TIME", "0"),
        ("KEEPALIVE_TIME", "250ms"),
        ("KEEPALIVE_INTERVAL", "-1"),
        ("KEEPALIVE_RETRIES", "128"),
        ("KEEPALIVE_ENABLED", "maybe"),
        ("USER_TIMEOUT_ENABLED", "1"),
    ],
)
def test_a_value_that_cannot_be_understood_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        read_config({name: value})


def test_a_window_smaller_than_where_streams_begin_is_where_they_begin_and_stay() -> None:
    limits = Tuning(stream_window=100_000).limits(client=False)
    assert (limits.stream_window, limits.grown_window) == (100_000, 100_000)
    assert Tuning(pool_streams=7).limits(client=True).max_streams == 7
    assert Tuning(pool_streams=7).limits(client=False).max_streams == 200


def test_the_user_timeout_is_when_keepalive_would_have_given_up() -> None:
    tuning = Tuning(user_timeout=True, keepalive_idle_s=10, keepalive_interval_s=5, keepalive_probes=3)
    assert tuning.user_timeout_ms == 25_000
