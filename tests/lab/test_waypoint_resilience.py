"""What is bad of a service behind a waypoint is not asked, and nobody asks more than he may.

Real Envoy, real ztunnels on both sides, real traffic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ambient.cli.demo.stage import PYTHON
from tests.support.lab import LabUnderTest, object_yaml, pod_yaml, until
from tests.support.waypoint_lab import GATEWAY_VERSION, apply, service_yaml, waypoint_lab

SERVER = r"""
import http.server, os
class Frail(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(503 if os.environ["HOSTNAME"] == "frail-bad" else 200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size, daemon_threads = 128, True
Server(("0.0.0.0", 8080), Frail).serve_forever()
"""
URL = "http://frail.shop/"
REF = {"group": "", "kind": "Service", "name": "frail"}


def server(name: str) -> str:
    ready = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    command = [PYTHON, "-u", "-c", SERVER]
    return pod_yaml(f"shop/{name}", command, node="n2", account="web", labels={"app": "frail"}, readiness=ready)


def rule(**policy: Any) -> str:
    """A DestinationRule."""
    spec = {"host": "frail.shop.svc.cluster.local", "trafficPolicy": policy}
    return object_yaml("networking.istio.io/v1", "DestinationRule", "frail", "shop", spec=spec)


def route(limits: str) -> str:
    spec = {"parentRefs": [REF], "rules": [{"backendRefs": [{"name": "frail", "port": 80}]}]}
    notes = {"ambient.mesh/rate-limit": limits}
    return object_yaml(GATEWAY_VERSION, "HTTPRoute", "frail", "shop", annotations=notes, spec=spec)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    port = {"name": "http", "port": 80, "targetPort": 8080}
    with waypoint_lab(service_yaml("frail", port, app="frail") + server("frail-good")) as lab:
        yield lab


def ask(lab: LabUnderTest, pod: str = "shop/client", times: int = 1) -> list[int]:
    """The statuses of so many requests, one after the other."""
    words = ("-s", "-m", "10", "-w", "%{http_code} ", *(("-o", "/dev/null", URL) * times))
    return [int(one) for one in lab.exec(pod, "curl", *words).stdout.split()]


def test_an_endpoint_that_fails_is_asked_no_more_unless_too_few_would_be_left(lab: LabUnderTest) -> None:
    apply(lab, server("frail-bad"))
    until("the bad one is asked", lambda: 503 in ask(lab))
    outliers = {"consecutive5xxErrors": 1, "interval": "1s", "baseEjectionTime": "600s", "maxEjectionPercent": 100}
    apply(lab, rule(outlierDetection=outliers))
    until("the bad one is asked no more", lambda: ask(lab, times=12) == [200] * 12)
    apply(lab, rule(outlierDetection={**outliers, "minHealthPercent": 100}))
    until("with too few left all are asked", lambda: 503 in ask(lab))
    lab.delete(rule(outlierDetection=outliers) + server("frail-bad"))
    until("the bad one is gone", lambda: ask(lab, times=12) == [200] * 12)


def test_a_client_has_its_own_limit_and_all_have_one_together(lab: LabUnderTest) -> None:
    apply(lab, route("client 3/d"))
    assert ask(lab, times=5) == [200, 200, 200, 429, 429]
    assert ask(lab, "shop/other", times=5) == [200, 200, 200, 429, 429]
    apply(lab, route("4/d"))
    assert ask(lab, times=3) + ask(lab, "shop/other", times=3) == [200, 200, 200, 200, 429, 429]
    lab.delete(route("4/d"))
    until("without it there is none", lambda: ask(lab, times=3) == [200] * 3)
