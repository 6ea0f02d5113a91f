"""What is said of a connection on the kernel path, and that it is not called encrypted."""

from __future__ import annotations

import logging

import pytest

from ambient.agent.direct_telling import MOST_SERIES, End, Telling
from ambient.agent.same_node import Judged, Right
from ambient.flows.record import Flow
from ambient.model.outcome import PeerLabels
from tests.support.direct import ONE

JUDGED = Judged(
    Right.YES,
    source=PeerLabels("client", "client-1", "shop", "client", principal="spiffe://cluster.local/ns/shop/sa/client"),
    destination=PeerLabels(
        "server", "server-1", "shop", "server", principal="spiffe://cluster.local/ns/shop/sa/server"
    ),
)


def test_a_line_of_the_access_log_names_both_identities_and_the_path(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "access"):
        Telling("n1", lambda _: None).closed(ONE, JUDGED, 10, 20, 1.5, End(), opened=True)
    outbound, inbound = (record.getMessage() for record in caplog.records)
    for text in (
        "connection complete\tsrc.addr=10.0.0.4:40000",
        'src.identity="spiffe://cluster.local/ns/shop/sa/client"',
        "dst.addr=10.0.0.5:80",
        'dst.identity="spiffe://cluster.local/ns/shop/sa/server"',
        'direction="outbound" path="kernel" bytes_sent=10 bytes_recv=20 duration="1500ms"',
    ):
        assert text in outbound
    assert 'direction="inbound" path="kernel" bytes_sent=20 bytes_recv=10' in inbound


def test_a_cut_connection_is_an_error_with_its_policy(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "access"):
        Telling("n1", lambda _: None).closed(ONE, JUDGED, 1, 2, 0.1, End("denied", "denied-by", "shop/no"), opened=True)
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert 'error="denied-by" reason="denied" policy="shop/no"' in caplog.records[0].getMessage()


def test_metrics_and_flows_say_kernel_not_mutual_tls() -> None:
    kept: list[Flow] = []
    telling = Telling("n1", kept.extend)
    telling.opened(JUDGED)
    telling.carried(JUDGED, 5, 7)
    telling.closed(ONE, JUDGED, 5, 7, 0.1, End(), opened=True)
    text = telling.render()
    assert text.count('connection_security_policy="kernel"') == 8
    assert "mutual_tls" not in text
    assert {flow.security for flow in kept} == {"kernel"}
    assert {flow.destination_principal for flow in kept} == {JUDGED.destination.principal}


def test_series_are_bounded_and_none_is_lost() -> None:
    telling = Telling("n1", lambda _: None)
    for number in range(MOST_SERIES):
        telling.opened(Judged(Right.YES, source=PeerLabels(f"client-{number}")))
    lines = [line for line in telling.render().splitlines() if line.startswith("istio_tcp_connections_opened_total{")]
    assert len(lines) <= MOST_SERIES + 2
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == 2 * MOST_SERIES
