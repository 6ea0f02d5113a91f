"""What is told about the Kubernetes API to whoever scrapes."""

from __future__ import annotations

from ambient.control.kube_metrics import SourceCollector
from ambient.control.metrics import ControlMetrics
from ambient.kube.api.access import ApiAccess, FixedCredentials, Identity
from ambient.kube.api.client import ApiClient
from ambient.kube.api.lease import Seat
from ambient.kube.api.source import ApiSource


def test_each_kind_has_its_series_and_the_lease_is_shown() -> None:
    access = ApiAccess("http://127.0.0.1:1", FixedCredentials(Identity()))
    seat = Seat(namespace="ambient-system", name="x", identity="me")
    source = ApiSource(ApiClient(access), kinds=("Pod", "Node"), seat=seat)
    source.followers["Pod"].events = 7
    source.followers["Pod"].opened = 3
    metrics = ControlMetrics()
    metrics.add(SourceCollector(source))
    lines = metrics.render().decode().splitlines()
    for line in (
        'ambient_control_kube_events_total{kind="Pod"} 7.0',
        'ambient_control_kube_watch_restarts_total{kind="Pod"} 2.0',
        'ambient_control_kube_watch_restarts_total{kind="Node"} 0.0',
        'ambient_control_kube_failing{kind="Pod"} 1.0',
        "ambient_control_leading 0.0",
        "ambient_control_status_waiting 0.0",
    ):
        assert line in lines
