"""Flows as lines for people."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.flows.format import HEADER, header, row, size
from ambient.flows.record import Event, Flow

FLOW = Flow(
    event=Event.CLOSED,
    time_unix=1700000000.5,
    node="n1",
    direction="outbound",
    source="10.0.0.1:4000",
    destination="10.0.0.2:80",
    source_pod="web",
    source_namespace="shop",
    security="mutual_tls",
    flags="DENY",
    reason="denied-by",
    policy="store/no",
    bytes_sent=2048,
    duration_ms=12,
)


def test_a_line_stands_under_its_header() -> None:
    columns = row(FLOW).split()
    assert columns[:6] == ["22:13:20.500", "closed", "outbound", "shop/web:4000", "10.0.0.2:80", "mutual_tls"]
    assert columns[6:] == ["2.0K", "0B", "12", "DENY", "denied-by", "store/no"]
    assert header().split() == list(HEADER)
    assert header().index("EVENT") == row(FLOW).index("closed")


def test_an_opened_connection_has_no_totals_yet() -> None:
    assert "2.0K" not in row(replace(FLOW, event=Event.OPENED))


def test_what_peers_sent_never_drives_the_terminal() -> None:
    assert row(replace(FLOW, detail="\x1b[2Jgone\nnext")).isprintable()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1.0K"), (1024, "1.0K"), (20480, "20K"), (1 << 20, "1.0M"), (1 << 50, "1024T")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text
