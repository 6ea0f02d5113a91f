"""What a waypoint tells of its traffic: Istio's standard metrics, and an access log.

Real Envoy, real ztunnels on both sides, real traffic.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.lab import LabUnderTest, until
from tests.support.waypoint_lab import apply, banner, policy_yaml, status, waypoint_lab

CLIENT = "spiffe://cluster.local/ns/shop/sa/client"
SERVER = "spiffe://cluster.local/ns/shop/sa/web"
WEB = "web.shop.svc.cluster.local"
FROM_CLIENT = {"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/client"]}}]}


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with waypoint_lab() as lab:
        yield lab


def samples(lab: LabUnderTest, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """What the metrics of the waypoint's agent say, as Prometheus reads them."""
    page = lab.exec(
        "shop/client", "curl", "-sS", "-m", "20", f"http://{lab.ip('shop/waypoint')}:15020/stats/prometheus"
    )
    assert page.returncode == 0, page.stderr + lab.tails()
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(page.stdout)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


def counted(lab: LabUnderTest, name: str, **labels: str) -> float:
    return sum(value for _, value in samples(lab, name, **labels))


def log(lab: LabUnderTest) -> str:
    """Everything that the waypoint's pod says."""
    return lab.run("logs", "shop/waypoint").stdout


def logged(lab: LabUnderTest, **fields: Any) -> list[dict[str, Any]]:
    """Lines of the waypoint's access log that say this."""
    lines = [json.loads(line) for line in log(lab).splitlines() if line.startswith('{"')]
    return [line for line in lines if fields.items() <= line.items()]


def test_a_request_is_counted_with_istios_labels(lab: LabUnderTest) -> None:
    assert status(lab, "shop/client", "-d", "x" * 2000) == 200
    labels = {
        "reporter": "waypoint",
        "source_workload_namespace": "shop",
        "source_principal": CLIENT,
        "source_workload": "client",
        "destination_service": WEB,
        "destination_service_name": "web",
        "destination_service_namespace": "shop",
        "destination_workload": "web-1",
        "destination_workload_namespace": "shop",
        "destination_principal": SERVER,
        "request_protocol": "http",
        "response_code": "200",
        "response_flags": "-",
        "grpc_response_status": "",
        "connection_security_policy": "mutual_tls",
    }
    until("the request is counted", lambda: counted(lab, "istio_requests_total", **labels) == 1)
    assert counted(lab, "istio_request_duration_milliseconds_count", **labels) == 1
    assert counted(lab, "istio_request_bytes_sum", **labels) > 2000
    assert counted(lab, "istio_response_bytes_sum", **labels) > 200
    assert counted(lab, "envoy_server_live") == 1  # Envoy's own are there too


def test_a_refusal_is_counted_and_marked_in_the_log(lab: LabUnderTest) -> None:
    apply(lab, policy_yaml("clients", "ALLOW", FROM_CLIENT))
    assert status(lab, "shop/other", "-H", "authorization: Bearer secret") == 403
    labels = {"source_principal": CLIENT.replace("client", "other"), "response_code": "403"}
    until("the refusal is counted", lambda: counted(lab, "istio_requests_total", **labels) == 1)
    assert counted(lab, "ambient_waypoint_security_signals_total", signal="denied") == 1
    (line,) = until("the refusal is logged", lambda: logged(lab, log="http", status=403))
    assert line["signal"] == "denied"
    assert (line["method"], line["protocol"], line["authority"]) == ("GET", "HTTP/1.1", "web.shop")
    assert "secret" not in log(lab)


def test_a_connection_that_is_no_http_is_counted_when_it_opens_and_when_it_ends(lab: LabUnderTest) -> None:
    assert banner(lab, "shop/client") == "banner"
    labels = {"destination_service_name": "banner", "source_principal": CLIENT, "request_protocol": "tcp"}
    until("it has ended", lambda: counted(lab, "istio_tcp_connections_closed_total", **labels) == 1)
    assert counted(lab, "istio_tcp_connections_opened_total", **labels) == 1
    assert counted(lab, "istio_tcp_sent_bytes_total", **labels) == len("banner\n")
