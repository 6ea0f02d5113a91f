"""What the director itself counts, and the way from there to the text of a scrape."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ztunnel.admin.metrics import END, render
from ztunnel.admin.traffic import traffic_text
from ztunnel.director.tally import Tally


class Count:
    """A counter: one total, or one for each value of its `label`."""

    __slots__ = ("help", "label", "name", "totals")

    def __init__(self, name: str, help_: str, label: str = "") -> None:
        self.name = name
        self.help = help_
        self.label = label
        self.totals: dict[str, int] = {} if label else {"": 0}

    def inc(self, by: int = 1, *, of: str = "") -> None:
        """`of`: the value of the label."""
        self.totals[of] = self.totals.get(of, 0) + by


class Stats:
    """The director's own counters, joined with the workers' when they are published."""

    def __init__(self, tally: Tally, gauges: Callable[[], Mapping[str, float]]) -> None:
        """`gauges()`: current values of the director by metric name (labels may follow in braces)."""
        self._tally = tally
        self._gauges = gauges
        self._counts: list[Count] = []
        self.xds_terminations = self._count(
            "istio_xds_connection_terminations", "The total number of completed connections to xds server.", "reason"
        )
        self._xds_messages = self._count("istio_xds_message", "Total number of messages received.", "url")
        self._xds_octets = self._count("istio_xds_message_bytes", "Total number of bytes received.", "url")
        self.proxies_started = self._count(
            "workload_manager_proxies_started", "The total number of proxies that were started."
        )
        self.proxies_stopped = self._count(
            "workload_manager_proxies_stopped", "The total number of proxies that were stopped."
        )
        self.certificates = self._count("ambient_certificate_requests", "Certificate requests.", "result")
        self.snapshot_failures = self._count("ambient_snapshot_failures", "Discovery snapshots that were not written.")
        self._spans_sent = self._count("ambient_spans_sent", "Spans that a receiver has taken.")
        self._spans_lost = self._count("ambient_spans_lost", "Flow records that became no span.", "reason")
        self.worker_starts = self._count("ambient_worker_connections", "Connections of workers to the director.")

    def _count(self, name: str, help_: str, label: str = "") -> Count:
        made = Count(name, help_, label)
        self._counts.append(made)
        return made

    def discovery_message(self, url: str, octets: int) -> None:
        """A response of so many octets arrived from the control plane."""
        self._xds_messages.inc(of=url)
        self._xds_octets.inc(octets, of=url)

    def spans_sent(self, count: int) -> None:
        """A receiver has taken so many spans."""
        self._spans_sent.inc(count)

    def spans_lost(self, count: int, reason: str) -> None:
        """So many flow records (or spans, where the receiver counted) are lost."""
        self._spans_lost.inc(count, of=reason)

    def render(self, *, exemplars: bool = False) -> bytes:
        """The text of /metrics: OpenMetrics, which Prometheus' text parser reads as well as long as no exemplars are
        in it."""
        return self.snapshot(exemplars=exemplars)()

    def snapshot(self, *, exemplars: bool) -> Callable[[], bytes]:
        """What is known now; the large part is rendered when the result is called, which a thread may do."""
        rest = render(self._counts, self._tally, self._gauges())
        lines = self._tally.lines()
        return lambda: rest + traffic_text(lines, exemplars=exemplars).encode() + END
