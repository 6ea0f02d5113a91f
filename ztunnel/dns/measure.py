"""What is counted about DNS questions, under Istio's names and labels (interop 7.6)."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from ambient.model.dns import AAAA, A
from ambient.model.outcome import PeerLabels
from ambient.model.traffic import UNKNOWN
from ztunnel.telemetry.counters import TrafficCounters

_TYPES: Final = {
    A: "a", 2: "ns", 5: "cname", 6: "soa", 12: "ptr", 15: "mx", 16: "txt", AAAA: "aaaa", 33: "srv", 65: "https"
}  # fmt: skip
"""A pod may ask for any of 65,536 types; those without a name here share one series."""
_BOUNDS: Final = (0.0005, 0.001, 0.01, 0.1, 1.0, 5.0)
_BOUND_TEXTS: Final = ("0.0005", "0.001", "0.01", "0.1", "1.0", "5.0", "+Inf")
_DURATION: Final = "istio_dns_upstream_request_duration_seconds"


def dns_labels(qtype: int, own: PeerLabels, *, stream: bool) -> str:
    """The labels of one question of a pod, as they stand between the braces of a metric name."""
    return (
        f'request_query_type="{_TYPES.get(qtype, "other")}",'
        f'request_protocol="{"tcp" if stream else "udp"}",'
        f'source_canonical_service="{own.canonical_service or UNKNOWN}",'
        f'source_canonical_revision="{own.canonical_revision or UNKNOWN}"'
    )


def asked(counters: TrafficCounters, labels: str) -> None:
    """A pod has asked."""
    counters.count(f"istio_dns_requests{{{labels}}}")


def forwarded(counters: TrafficCounters, labels: str) -> None:
    """Its question went on to a resolver."""
    counters.count(f"istio_dns_upstream_requests{{{labels}}}")


def came_back(counters: TrafficCounters, labels: str, seconds: float, *, answered: bool) -> None:
    """The resolver has answered, or never will."""
    if not answered:
        counters.count(f"istio_dns_upstream_failures{{{labels}}}")
    falls_into = bisect_left(_BOUNDS, seconds)
    for at, bound in enumerate(_BOUND_TEXTS):
        # A bucket that nothing fell into has to be there all the same.
        counters.count(f'{_DURATION}_bucket{{{labels},le="{bound}"}}', int(at == falls_into))
    counters.count(f"{_DURATION}_micros{{{labels}}}", int(seconds * 1e6))


def looked_up(counters: TrafficCounters, own: PeerLabels, principal: str, hostname: str) -> None:
    """A connection of a pod goes to an endpoint that is known by name only."""
    values = (
        ("source_workload", own.workload),
        ("source_canonical_service", own.canonical_service),
        ("source_canonical_revision", own.canonical_revision),
        ("source_workload_namespace", own.namespace),
        ("source_principal", principal),
        ("source_app", own.canonical_service),
        ("source_version", own.canonical_revision),
        ("source_cluster", own.cluster),
        ("hostname", hostname),
    )
    labels = ",".join(f'{name}="{value or UNKNOWN}"' for name, value in values)
    counters.count(f"istio_on_demand_dns{{{labels}}}")
