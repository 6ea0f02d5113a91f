"""Istio's metrics from lines of the access log."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ambient.waypoint.agent.lines import Line
from ambient.waypoint.agent.traffic import Traffic

PEER = "spiffe://cluster.local/ns/shop/sa/client"
BAGGAGE = "k8s.cluster.name=one,k8s.namespace.name=forged,k8s.deployment.name=client,service.name=c,service.version=v1"


def line(log: str = "http", **fields: object) -> Line:
    told: dict[str, object] = {
        "peer": PEER,
        "source": BAGGAGE,
        "service": "web.shop.svc.cluster.local",
        "namespace": "shop",
        "destination": "web-v2;shop;web;v2;two",
        "upstream_peer": "spiffe://cluster.local/ns/shop/sa/web",
        "flags": "-",
        **({"status": 200, "duration_ms": 7, "wire_received": 300, "wire_sent": 4000} if log == "http" else {}),
    }
    return Line(log, **{**told, **fields})  # type: ignore[arg-type]


def samples(traffic: Traffic) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families("".join(traffic.render())):
        for one in family.samples:
            found.setdefault(one.name, []).append((one.labels, one.value))
    return found


def of(traffic: Traffic, name: str) -> dict[str, float]:
    """Values by what tells them apart in these tests."""
    return {labels.get("le", labels.get("source_workload", "")): value for labels, value in samples(traffic)[name]}


def taken(*lines: Line, limit: int = 10) -> Traffic:
    traffic = Traffic(limit)
    for one in lines:
        traffic.take(one)
    return traffic


def test_a_request_has_istios_labels() -> None:
    ((labels, value),) = samples(taken(line()))["istio_requests_total"]
    assert value == 1
    assert labels == {
        "reporter": "waypoint",
        "source_workload": "client",
        "source_canonical_service": "c",
        "source_canonical_revision": "v1",
        "source_workload_namespace": "shop",  # proven, whatever the baggage says
        "source_principal": PEER,
        "source_app": "c",
        "source_version": "v1",
        "source_cluster": "one",
        "destination_service": "web.shop.svc.cluster.local",
        "destination_service_namespace": "shop",
        "destination_service_name": "web",
        "destination_workload": "web-v2",
        "destination_canonical_service": "web",
        "destination_canonical_revision": "v2",
        "destination_workload_namespace": "shop",
        "destination_principal": "spiffe://cluster.local/ns/shop/sa/web",
        "destination_app": "web",
        "destination_version": "v2",
        "destination_cluster": "two",
        "request_protocol": "http",
        "response_code": "200",
        "grpc_response_status": "",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
    }


def test_durations_and_sizes_are_in_the_buckets_of_istio() -> None:
    traffic = taken(line(), line(duration_ms=5_000_000), line(duration_ms=10))
    durations = of(traffic, "istio_request_duration_milliseconds_bucket")
    assert (durations["5"], durations["10"], durations["3600000"], durations["+Inf"]) == (0, 2, 2, 3)
    assert list(of(traffic, "istio_request_duration_milliseconds_sum").values()) == [5_000_017]
    assert list(of(traffic, "istio_request_bytes_sum").values()) == [900]
    assert list(of(traffic, "istio_response_bytes_sum").values()) == [12000]


def test_grpc_has_its_own_protocol_and_status() -> None:
    found = samples(taken(line(content_type="application/grpc+proto", grpc_status=14)))
    ((labels, _),) = found["istio_requests_total"]
    assert (labels["request_protocol"], labels["grpc_response_status"]) == ("grpc", "14")


@pytest.mark.parametrize("log", ["http", "tcp"])
@pytest.mark.parametrize(
    "field", ["peer", "source", "service", "namespace", "destination", "upstream_peer", "flags", "status"]
)
def test_lines_that_differ_in_what_labels_are_made_of_are_counted_apart_however_often_they_come(
    log: str, field: str
) -> None:
    other: object = 503 if field == "status" else "k8s.deployment.name=b" if field == "source" else "b;b;b;b;b"
    count = "istio_requests_total" if log == "http" else "istio_tcp_connections_closed_total"
    lines = [line(log, kind="TcpConnectionEnd", connection=1), line(log, **{field: other})] * 3
    found = samples(taken(*lines))[count]
    assert [value for _, value in found] == ([6] if (log, field) == ("tcp", "status") else [3, 3])


def test_more_kinds_of_lines_than_are_remembered_are_counted_all_the_same() -> None:
    lines = [line(source=f"k8s.deployment.name=w{number}") for number in range(5000)]
    found = of(taken(*lines, *lines, limit=3), "istio_requests_total")
    assert sum(found.values()) == 10_000


def test_what_nobody_answered_has_an_unknown_destination() -> None:
    found = samples(taken(line(status=403, flags=None, destination=None, upstream_peer=None)))
    ((labels, _),) = found["istio_requests_total"]
    assert (labels["destination_workload"], labels["destination_principal"]) == ("unknown", "unknown")
    assert (labels["destination_service_name"], labels["response_code"]) == ("web", "403")


def test_bytes_of_a_connection_are_counted_while_it_goes_on_and_once() -> None:
    traffic = taken(line("tcp", kind="TcpUpstreamConnected", connection=7))
    traffic.take(line("tcp", kind="TcpPeriodic", connection=7, received=100, sent=10))
    assert list(of(traffic, "istio_tcp_received_bytes_total").values()) == [100]
    assert list(of(traffic, "istio_tcp_connections_closed_total").values()) == [0]
    traffic.take(line("tcp", kind="TcpConnectionEnd", connection=7, received=150, sent=20))
    assert list(of(traffic, "istio_tcp_received_bytes_total").values()) == [150]
    assert list(of(traffic, "istio_tcp_sent_bytes_total").values()) == [20]
    assert list(of(traffic, "istio_tcp_connections_opened_total").values()) == [1]
    assert list(of(traffic, "istio_tcp_connections_closed_total").values()) == [1]


def test_a_connection_that_found_no_server_was_opened_and_closed() -> None:
    traffic = taken(line("tcp", kind="TcpConnectionEnd", connection=8, flags="UF"))
    assert list(of(traffic, "istio_tcp_connections_opened_total").values()) == [1]
    assert list(of(traffic, "istio_tcp_connections_closed_total").values()) == [1]


def test_names_that_a_client_makes_up_take_no_more_room_and_no_request_is_lost() -> None:
    made_up = [line(source=f"k8s.deployment.name=w{number}") for number in range(500)]
    found = of(taken(*made_up, limit=3), "istio_requests_total")
    assert len(found) == 4
    assert found["overflow"] == 497
    assert sum(found.values()) == 500


def test_a_label_cannot_break_out_of_its_quotes() -> None:
    ((labels, _),) = samples(taken(line(source='k8s.deployment.name=a"} 1\\\nx')))["istio_requests_total"]
    assert labels["source_workload"] == 'a"} 1\\\nx'


def test_connects_are_counted_by_their_answer() -> None:
    traffic = taken(line("connect", status=200), line("connect", status=403), line("connect", status=403))
    found = samples(traffic)["ambient_waypoint_connects_total"]
    assert {labels["status"]: value for labels, value in found} == {"200": 1, "403": 2}
