"""Lines of the access log: what is read of them, and what is marked for whoever watches over security."""

from __future__ import annotations

import json

import pytest

from ambient.errors import InvalidInput
from ambient.waypoint.agent.lines import logged, read, signal


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (200, ""),
        (204, ""),
        (101, ""),
        (301, "redirected"),
        (401, "unauthenticated"),
        (403, "denied"),
        (429, "limited"),
        (404, "failed"),
        (503, "failed"),
        (0, "failed"),
    ],
)
def test_every_answer_but_a_success_is_marked(status: int, told: str) -> None:
    data = json.dumps({"log": "http", "status": status, "service": "web"}).encode()
    line = read(data)
    assert signal(line) == told
    assert json.loads(logged(data, line)).get("signal", "") == told


def test_of_a_connection_that_goes_on_nothing_is_logged() -> None:
    for kind, told in (("TcpPeriodic", False), ("TcpUpstreamConnected", False), ("TcpConnectionEnd", True)):
        data = json.dumps({"log": "tcp", "kind": kind}).encode()
        assert bool(logged(data, read(data))) is told


def test_a_tunnel_that_could_not_be_had_is_marked() -> None:
    assert signal(read(b'{"log":"tunnel","failure":"no such peer"}')) == "failed"


@pytest.mark.parametrize("data", [b"", b"{}", b"starting", b'{"log":1}', b'{"log":"http","status":"x"}', b"\xff{"])
def test_what_is_no_line_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        read(data)


@pytest.mark.parametrize(
    ("status", "least", "told"),
    [
        (200, "400", False),
        (399, "400", False),
        (400, "400", True),
        (0, "400", False),
        (599, "1000", False),
        (200, "", True),
    ],
)
def test_what_is_less_than_its_owner_wants_to_be_told_is_read_and_not_logged(
    status: int, least: str, told: bool
) -> None:
    data = json.dumps({"log": "http", "status": status, "least": least}).encode()
    line = read(data)
    assert line.status == status
    assert bool(logged(data, line)) is told


def test_a_connection_has_no_status_and_is_not_logged_where_answers_are_filtered() -> None:
    data = json.dumps({"log": "tcp", "kind": "TcpConnectionEnd", "least": "400"}).encode()
    assert logged(data, read(data)) == b""
