"""The text of /metrics: Istio's names and labels, read back by Prometheus' own parser."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ambient.model.traffic import TRAFFIC
from ztunnel.admin.metrics import split_name
from ztunnel.admin.stats import Stats
from ztunnel.director.tally import Tally
from ztunnel.ipc.messages import Counters, Series

GOLDEN = Path(__file__).parents[2] / "golden" / "ztunnel-metrics-loaded-n1.txt"


def stats(other: dict[str, int] | None = None, *, width: int = len(TRAFFIC)) -> Stats:
    tally = Tally()
    tally.hello(1)
    values = tuple(f"v{n}" for n in range(width))
    series = Series(labels=values, opened=3, closed=2, failed=0, received=100, sent=200)
    gauges = {'istio_tcp_sockets_open{reporter="source"}': 4.0, "worker_pods": 2.0}
    tally.report(1, Counters(series=(series,), other=other or {}, gauges=gauges))
    pods = {"workload_manager_active_proxy_count": 5.0, "workload_manager_pending_proxy_count": 0.0}
    return Stats(tally, lambda: pods)


def samples(text: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text.decode()):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_traffic_has_istios_names_and_all_its_labels() -> None:
    found = samples(stats().render())
    expected = {
        "istio_tcp_connections_opened_total": 3,
        "istio_tcp_connections_closed_total": 2,
        "istio_tcp_received_bytes_total": 100,
        "istio_tcp_sent_bytes_total": 200,
    }
    for name, value in expected.items():
        ((labels, got),) = found[name]
        assert got == value
        assert labels == {label: f"v{n}" for n, label in enumerate(TRAFFIC)}


def test_a_series_without_locality_has_only_the_other_labels() -> None:
    ((labels, _),) = samples(stats(width=len(TRAFFIC) - 4).render())["istio_tcp_connections_opened_total"]
    assert "source_region" not in labels
    assert len(labels) == len(TRAFFIC) - 4


def test_a_failure_counter_appears_only_with_its_first_failure() -> None:
    assert "istio_tcp_connections_failed_total" not in samples(stats().render())


def test_other_counters_keep_their_labels_and_get_our_prefix_where_they_have_none() -> None:
    found = samples(stats({'istio_dns_requests{request_protocol="udp",a="b"}': 7, "hbone_errors": 1}).render())
    assert found["istio_dns_requests_total"] == [({"request_protocol": "udp", "a": "b"}, 7.0)]
    assert found["ambient_hbone_errors_total"] == [({}, 1.0)]
    assert found["istio_tcp_sockets_open"] == [({"reporter": "source"}, 4.0)]
    assert found["ambient_worker_pods"] == [({}, 2.0)]
    assert found["workload_manager_active_proxy_count"] == [({}, 5.0)]


def test_the_rest_of_istios_metrics_is_there() -> None:
    one = stats()
    one.discovery_message("type.googleapis.com/istio.workload.Address", 4392)
    one.xds_terminations.inc(of="ConnectionError")
    text = one.render()
    found = samples(text)
    for name in (
        "istio_xds_message_total",
        "istio_xds_connection_terminations_total",
        "workload_manager_proxies_started_total",
        "workload_manager_proxies_stopped_total",
        "istio_build",
        "process_open_fds",
        "process_max_fds",
    ):
        assert name in found
    assert b"_created" not in text
    assert text.endswith(b"# EOF\n")


def test_names_are_split_from_their_labels() -> None:
    assert split_name("x_total") == ("ambient_x", {})
    assert split_name('istio_y{a="1", b="2"}') == ("istio_y", {"a": "1", "b": "2"})


def test_histograms_of_workers_come_out_cumulative() -> None:
    name = "istio_dns_upstream_request_duration_seconds"
    other = {
        f'{name}_bucket{{request_protocol="udp",le="0.001"}}': 2,
        f'{name}_bucket{{request_protocol="udp",le="+Inf"}}': 1,
        f'{name}_micros{{request_protocol="udp"}}': 2_500_000,
    }
    found = samples(stats(other).render())
    assert found[f"{name}_bucket"] == [
        ({"request_protocol": "udp", "le": "0.001"}, 2.0),
        ({"request_protocol": "udp", "le": "+Inf"}, 3.0),
    ]
    assert found[f"{name}_count"] == [({"request_protocol": "udp"}, 3.0)]
    assert found[f"{name}_sum"] == [({"request_protocol": "udp"}, 2.5)]


def test_every_metric_of_a_real_ztunnel_has_its_name_and_type_here_but_for_those_of_its_runtime() -> None:
    one = stats({'istio_dns_requests{request_query_type="a"}': 1})
    one.discovery_message("u", 1)
    one.xds_terminations.inc(of="Complete")
    pattern = re.compile(r"# TYPE (\S+) (\S+)")
    theirs = {found for found in pattern.findall(GOLDEN.read_text()) if not found[0].startswith("tokio_")}
    assert theirs <= set(pattern.findall(one.render().decode()))
