"""What the `baggage` of a tunnel says about the workload that sent it: for telemetry only, it proves nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.model.outcome import PeerLabels

_KEYS: Final = {
    "k8s.cluster.name": "cluster",
    "k8s.namespace.name": "namespace",
    "k8s.deployment.name": "workload",
    "k8s.cronjob.name": "workload",
    "k8s.pod.name": "workload",
    "k8s.job.name": "workload",
    "service.name": "canonical_service",
    "service.version": "canonical_revision",
    "cloud.region": "region",
    "cloud.availability_zone": "zone",
}
LONGEST: Final = 253
"""Characters of a value: no name in Kubernetes has more. Each is kept in memory and goes out with every scrape."""


def baggage_labels(values: Iterable[str], principal: str = "") -> PeerLabels:
    """Labels from the values of all `baggage` fields; unknown keys and empty values are passed over. `principal` is
    what the certificate said."""
    found: dict[str, str] = {}
    for value in values:
        for pair in value.split(","):
            key, _, rest = pair.partition("=")
            label = _KEYS.get(key)
            if label is not None and rest:
                found[label] = rest.partition("=")[0][:LONGEST]
    return PeerLabels(principal=principal, **found)
