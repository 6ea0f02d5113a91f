"""What Envoy is told to write: formats that it takes, and no token in any."""

from __future__ import annotations

import json

import pytest

from ambient.waypoint import access
from ambient.waypoint.typed import Message
from tests.support.waypoint_views import front

LOGS = {
    "http": access.http_log(front()),
    "tcp": access.tcp_log(front()),
    "connect": access.connect_log(),
    "tunnel": access.failed_tunnel_log(),
}


def fields(log: Message) -> dict[str, str]:
    found: dict[str, str] = log["typed_config"]["log_format"]["json_format"]
    return found


@pytest.mark.parametrize("name", LOGS)
def test_a_line_says_what_it_is_of_and_when(name: str) -> None:
    found = fields(LOGS[name])
    assert found["log"] == name
    assert found["time"] == "%START_TIME%"


def test_a_request_says_whose_token_it_had_and_not_the_token() -> None:
    found = fields(LOGS["http"])
    assert {"method", "protocol", "upstream", "authority", "status", "flags", "peer"} <= found.keys()
    assert {"token_subject", "token_issuer", "token_scope"} <= found.keys()
    text = json.dumps(LOGS).lower()
    assert "authorization" not in text
    assert "%path(nq:" in text, "the query may hold a token"
