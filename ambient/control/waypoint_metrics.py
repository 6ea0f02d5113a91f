"""How the waypoints fare, as the control plane sees it, read when somebody scrapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ambient.control.waypoints import Waypoints

_PREFIX: Final = "ambient_control_waypoint"


class WaypointCollector(Collector):
    """Series by Gateway. What is refused or closed is worth an alarm."""

    def __init__(self, waypoints: Waypoints) -> None:
        self._waypoints = waypoints

    def collect(self) -> Iterator[Metric]:
        labels = ["namespace", "gateway"]
        proxies = GaugeMetricFamily(f"{_PREFIX}_proxies", "Proxies connected.", labels=labels)
        refused = GaugeMetricFamily(f"{_PREFIX}_refused_resources", "Resources that proxies refuse.", labels=labels)
        closed = GaugeMetricFamily(f"{_PREFIX}_closed_ports", "Ports of services closed because of it.", labels=labels)
        for key, state in self._waypoints.summary.items():
            names = key.split("/")
            proxies.add_metric(names, state["proxies"])
            refused.add_metric(names, len(state["refused"]))
            closed.add_metric(names, len(state["closed"]))
        yield from (proxies, refused, closed)
