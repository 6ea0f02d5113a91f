"""DNS metrics carry Istio's names and labels, and a duration falls into Istio's buckets."""

from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ambient.model.outcome import PeerLabels
from ztunnel.admin.metrics import split_name
from ztunnel.admin.stats import Stats
from ztunnel.director.tally import Tally
from ztunnel.dns.measure import asked, came_back, dns_labels, forwarded, looked_up
from ztunnel.telemetry.counters import TrafficCounters

CLIENT = PeerLabels(canonical_service="client", canonical_revision="v1")


def published(counters: TrafficCounters) -> dict[tuple[str, str], float]:
    tally = Tally()
    tally.hello(1)
    report = counters.report(dict)
    assert report is not None
    tally.report(1, report)
    text = Stats(tally, dict).render().decode()
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        if family.name.startswith("istio_dns")
        for sample in family.samples
    }


def test_a_question_that_is_forwarded_is_counted_asked_forwarded_and_timed() -> None:
    counters, labels = TrafficCounters(), dns_labels(1, CLIENT, stream=False)
    asked(counters, labels)
    forwarded(counters, labels)
    came_back(counters, labels, 0.004, answered=True)
    found = published(counters)
    assert found["istio_dns_requests_total", ""] == found["istio_dns_upstream_requests_total", ""] == 1
    assert ("istio_dns_upstream_failures_total", "") not in found
    name = "istio_dns_upstream_request_duration_seconds"
    assert found[f"{name}_bucket", "0.01"] == found[f"{name}_count", ""] == 1
    assert found[f"{name}_sum", ""] == 0.004


def test_the_labels_are_istios() -> None:
    assert dns_labels(28, CLIENT, stream=True) == (
        'request_query_type="aaaa",request_protocol="tcp",source_canonical_service="client",'
        'source_canonical_revision="v1"'
    )
    assert 'request_query_type="other"' in dns_labels(64_999, CLIENT, stream=False)
    assert 'source_canonical_service="unknown"' in dns_labels(1, PeerLabels(), stream=False)


def test_looking_up_a_name_that_discovery_gave_is_counted_with_istios_labels() -> None:
    counters = TrafficCounters()
    looked_up(counters, CLIENT, "spiffe://td/ns/n/sa/s", "db.example.org")
    (name,) = counters._other
    assert split_name(name) == (
        "istio_on_demand_dns",
        {
            "source_workload": "unknown",
            "source_canonical_service": "client",
            "source_canonical_revision": "v1",
            "source_workload_namespace": "unknown",
            "source_principal": "spiffe://td/ns/n/sa/s",
            "source_app": "client",
            "source_version": "v1",
            "source_cluster": "unknown",
            "hostname": "db.example.org",
        },
    )


@pytest.mark.parametrize(("seconds", "bound"), [(0.0, "0.0005"), (0.0005, "0.0005"), (0.2, "1.0"), (9.0, "+Inf")])
def test_durations_fall_into_istios_buckets(seconds: float, bound: str) -> None:
    counters = TrafficCounters()
    came_back(counters, dns_labels(1, CLIENT, stream=False), seconds, answered=False)
    buckets = [key for key, count in counters._other.items() if "_bucket" in key and count]
    assert buckets == [key for key in buckets if f'le="{bound}"' in key]
    assert sum("upstream_failures" in key for key in counters._other) == 1
