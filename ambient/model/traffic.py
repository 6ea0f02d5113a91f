"""The labels of Istio's traffic metrics, in their order, and how a record's two sides become label values."""

from __future__ import annotations

from typing import Final

from ambient.model.outcome import PeerLabels, ServiceLabels

UNKNOWN: Final = "unknown"

TRAFFIC: Final = (
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
    "source_region",
    "source_zone",
    "destination_region",
    "destination_zone",
)
FLAGS: Final = TRAFFIC.index("response_flags")

MUTUAL_TLS: Final = "mutual_tls"
KERNEL: Final = "kernel"
"""Both pods are on one node, whose kernel knows each by its namespace; nothing is encrypted (decision 0023)."""

OVERFLOW: Final = "overflow"
_BOUNDED: Final = frozenset(
    TRAFFIC.index(name) for name in ("reporter", "request_protocol", "response_flags", "connection_security_policy")
)
"""Labels with few values, whatever pods do: they stay readable in the overflow series."""


def traffic_labels(
    reporter: str,
    source: PeerLabels,
    source_principal: str,
    destination: PeerLabels,
    destination_principal: str,
    service: ServiceLabels,
    *,
    security: str,
) -> tuple[str, ...]:
    """Label values in the order of TRAFFIC with response_flags "-"; what is not known is "unknown".

    Principals are full SPIFFE URIs. `security` is MUTUAL_TLS, KERNEL, or "" for neither.
    `*_app` and `*_version` repeat the canonical name and revision.
    """
    values = (
        reporter,
        source.workload,
        source.canonical_service,
        source.canonical_revision,
        source.namespace,
        source_principal,
        source.canonical_service,
        source.canonical_revision,
        source.cluster,
        service.hostname,
        service.namespace,
        service.name,
        destination.workload,
        destination.canonical_service,
        destination.canonical_revision,
        destination.namespace,
        destination_principal,
        destination.canonical_service,
        destination.canonical_revision,
        destination.cluster,
        "tcp",
        "-",
        security,
        source.region,
        source.zone,
        destination.region,
        destination.zone,
    )
    return tuple(value or UNKNOWN for value in values)


def with_flags(labels: tuple[str, ...], flags: str) -> tuple[str, ...]:
    """The same labels with another response_flags value."""
    return labels if flags == "-" else (*labels[:FLAGS], flags, *labels[FLAGS + 1 :])


def overflow(labels: tuple[str, ...]) -> tuple[str, ...]:
    """The labels of the series that stands for all those there is no room for."""
    return tuple(value if at in _BOUNDED else OVERFLOW for at, value in enumerate(labels))


def is_overflow(labels: tuple[str, ...]) -> bool:
    """Stands for others."""
    return len(labels) > 1 and labels[1] == OVERFLOW and overflow(labels) == labels
