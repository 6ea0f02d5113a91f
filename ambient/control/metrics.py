"""What the control plane counts, in istiod's names where istiod has one; a registry of its own, no global state."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from ambient.kube.objects import KINDS

_NAME_OF_ISTIOD = re.compile(
    r"\b(pilot_xds_pushes|pilot_total_xds_rejects|citadel_server_csr_count|citadel_server_success_cert_issuance_count"
    r"|citadel_server_authentication_failure_count|galley_validation_config_updates"
    r"|galley_validation_config_update_error)_total\b"
)
_CREATED = re.compile(r"^(# \w+ )?\w+_created\b")
_PUSH_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Bundles(Protocol):
    """Namespaces by what became of the roots in them."""

    @property
    def missing(self) -> int: ...

    @property
    def foreign(self) -> int: ...


class ControlMetrics:
    """The series, by attribute. `render()` gives the text exposition."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.streams = Gauge("pilot_xds", "Open discovery streams.", registry=registry)
        self.pushes = Counter("pilot_xds_pushes", "Discovery responses sent.", ["type"], registry=registry)
        self.rejects = Counter(
            "pilot_total_xds_rejects", "Discovery responses that a client refused.", ["type"], registry=registry
        )
        self.convergence = Histogram(
            "pilot_proxy_convergence_time",
            "Seconds from a change to its acknowledgement by a client.",
            buckets=_PUSH_BUCKETS,
            registry=registry,
        )
        self.denied = Counter(
            "ambient_control_refused_calls",
            "Calls refused, by service and status.",
            ["service", "code"],
            registry=registry,
        )
        self.csrs = Counter("citadel_server_csr_count", "Certificate requests.", registry=registry)
        self.issued = Counter("citadel_server_success_cert_issuance_count", "Certificates issued.", registry=registry)
        self.authentication_failures = Counter(
            "citadel_server_authentication_failure_count",
            "Certificate requests without a valid token.",
            registry=registry,
        )
        self._root_end = math.nan
        root_expiry = Gauge(
            "citadel_server_root_cert_expiry_timestamp",
            "End of the signing certificate, unix seconds.",
            registry=registry,
        )
        root_expiry.set_function(lambda: self._root_end)
        root_left = Gauge(
            "citadel_server_root_cert_expiry_seconds",
            "Seconds until the signing certificate ends.",
            registry=registry,
        )
        root_left.set_function(lambda: self._root_end - time.time())
        self.roots = Gauge("ambient_control_trusted_roots", "Roots that are trusted.", registry=registry)
        self.reviews = Counter(
            "ambient_control_admission_reviews",
            "Objects that the API server asked about, by kind and verdict.",
            ["kind", "verdict"],
            registry=registry,
        )
        self.webhook_updates = Counter(
            "galley_validation_config_updates",
            "Times that our authority was put into the webhook configuration.",
            registry=registry,
        )
        self.webhook_update_errors = Counter(
            "galley_validation_config_update_error",
            "Times that this failed, by reason.",
            ["reason"],
            registry=registry,
        )
        self._bundles = Gauge(
            "ambient_control_root_config_maps",
            "Namespaces without the roots, or with somebody else's, by state.",
            ["state"],
            registry=registry,
        )
        self.identity_refusals = Counter(
            "ambient_control_identity_refusals",
            "Certificates refused to a node because of the identity, by reason.",
            ["reason"],
            registry=registry,
        )
        self.revision = Gauge("ambient_control_revision", "Objects revision acted upon.", registry=registry)
        self.resources = Gauge("ambient_control_resources", "Resources served, by type.", ["type"], registry=registry)
        self.derive_seconds = Histogram(
            "ambient_control_derive_seconds",
            "Seconds to derive resources from objects.",
            buckets=_PUSH_BUCKETS,
            registry=registry,
        )
        self.refused_objects = Gauge(
            "ambient_control_refused_objects", "Stored objects that are invalid.", registry=registry
        )
        self.without_waypoint = Gauge(
            "ambient_control_without_waypoint",
            "Services that ask for a waypoint and have none: called directly, or closed, as their owner says.",
            registry=registry,
        )

    def authority(self, ends: datetime, roots: int) -> None:
        """What signs now: the end of the signing certificate, and how many roots are trusted."""
        self._root_end = ends.timestamp()
        self.roots.set(roots)

    def bundles(self, bundles: Bundles) -> None:
        """Shows how the ConfigMaps with the roots are."""
        for state, count in (("missing", lambda: bundles.missing), ("foreign", lambda: bundles.foreign)):
            self._bundles.labels(state).set_function(count)

    def add(self, collector: Collector) -> None:
        """Series that are read when somebody scrapes."""
        self._registry.register(collector)

    @staticmethod
    def reviewed_kind(kind: object) -> str:
        """A label value that no caller can invent."""
        return kind if isinstance(kind, str) and kind in KINDS else "other"

    def render(self) -> bytes:
        """The text exposition. Counters that istiod has bear its names, which have no `_total`."""
        lines = generate_latest(self._registry).decode().splitlines()
        kept = (_NAME_OF_ISTIOD.sub(r"\1", line) for line in lines if not _CREATED.search(line))
        return "\n".join([*kept, ""]).encode()
