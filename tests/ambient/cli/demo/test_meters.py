"""The counters are summed over exactly the series that are asked for."""

from __future__ import annotations

from ambient.cli.demo.meters import traffic


def _sample(name: str, reporter: str, destination: str, value: object) -> str:
    labels = f'reporter="{reporter}",source_principal="spiffe://a",destination_principal="spiffe://{destination}"'
    return f"istio_tcp_{name}_total{{{labels}}} {value}\n"


TEXT = (
    "# TYPE istio_tcp_sent_bytes_total counter\n"
    + _sample("sent_bytes", "source", "b", 10)
    + _sample("sent_bytes", "source", "c", 100)
    + _sample("sent_bytes", "destination", "b", 1000)
    + _sample("connections_opened", "source", "b", 2.0)
    + _sample("connections_failed", "source", "b", 7)
)


def test_only_series_with_all_wanted_labels_count() -> None:
    sums = traffic(TEXT, {"reporter": "source", "destination_principal": "spiffe://b"})
    assert sums["istio_tcp_sent_bytes_total"] == 10
    assert sums["istio_tcp_connections_opened_total"] == 2
    assert sums["istio_tcp_received_bytes_total"] == 0
    assert "istio_tcp_connections_failed_total" not in sums


def test_without_wishes_all_series_count() -> None:
    assert traffic(TEXT, {})["istio_tcp_sent_bytes_total"] == 1110
