"""What the service tells of itself, in Prometheus' format."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_PREFIX: Final = "ambient_ratelimit"
_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
REASONS: Final = ("unavailable", "answer", "request", "defect")
"""Why a request was not counted: Redis does not answer, what it says is no answer, what was asked is no question, or we
are wrong."""


class Metrics:
    """In a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            f"{_PREFIX}_requests", "Requests that proxies asked about.", ["result"], registry=self._registry
        )
        self.errors = Counter(
            f"{_PREFIX}_errors", "Requests that were not counted, by reason.", ["reason"], registry=self._registry
        )
        self.redis_seconds = Histogram(
            f"{_PREFIX}_redis_seconds", "Time that Redis took to count.", buckets=_BUCKETS, registry=self._registry
        )
        self.redis_up = Gauge(f"{_PREFIX}_redis_up", "Whether Redis answers.", registry=self._registry)
        for result in ("allowed", "denied", "error"):
            self.requests.labels(result)
        for reason in REASONS:
            self.errors.labels(reason)

    def error(self, reason: str) -> None:
        """One request that was not counted; `reason` is one of REASONS."""
        self.requests.labels("error").inc()
        self.errors.labels(reason).inc()

    def render(self) -> bytes:
        return generate_latest(self._registry)
