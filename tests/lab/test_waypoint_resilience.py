"""What is bad of a service behind a waypoint is not asked, and nobody asks more than he may.

Real Envoy, real ztunnels on both sides, real traffic.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ambient.cli.demo.stage import PYTHON
from ambient.kube.objects import Pod
from tests.support.lab import LabUnderTest, object_yaml, pod_yaml, until
from tests.support.waypoint_lab import GATEWAY_VERSION, apply, service_yaml, waypoint_lab

SERVER = r"""
import http.server, os
class Frail(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/hold":
            print("holds", flush=True)
            return self.rfile.read(1)
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
    words = ("-s", "-m", "20", "-w", "%{http_code} ", *(("-o", "/dev/null", URL) * times))
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


def held(lab: LabUnderTest) -> int:
    """How many requests servers were ever given to hold."""
    pods = [f"{one.namespace}/{one.name}" for one in lab.lab.records().of(Pod) if one.name.startswith("frail-")]
    return sum(lab.run("logs", pod).stdout.count("holds") for pod in pods)


@contextmanager
def holding(lab: LabUnderTest, count: int) -> Iterator[None]:
    """While servers hold so many requests more."""
    before = held(lab)
    started = [lab.start("shop/client", "curl", "-s", "-m", "300", f"{URL}hold") for _ in range(count)]
    try:
        until("they are held", lambda: held(lab) == before + count, 100)
        yield
    finally:
        for one in started:
            one.kill()
            one.communicate()


def turned_away(lab: LabUnderTest, pod: str = "shop/client") -> bool:
    """Whether a request was refused at once by the breaker, and not by a server."""
    told = lab.exec(pod, "curl", "-s", "-m", "60", "-D", "-", "-o", "/dev/null", URL).stdout.lower()
    return told.startswith("http/1.1 503") and "x-envoy-overloaded: true" in told


def test_more_requests_than_a_service_can_bear_are_refused_at_once(lab: LabUnderTest) -> None:
    bears = rule(connectionPool={"http": {"http2MaxRequests": 2}})
    apply(lab, bears)
    assert ask(lab, times=5) == [200] * 5  # one after the other it bears any number
    with holding(lab, 2):
        given = held(lab)
        assert turned_away(lab)
        assert turned_away(lab, "shop/other")
        assert held(lab) == given
        lab.delete(bears)
        until("without the rule it is asked again", lambda: ask(lab) == [200])
    apply(lab, bears)
    until("what was held counts no more", lambda: ask(lab, times=3) == [200] * 3)
    lab.delete(bears)


def test_where_too_few_endpoints_are_good_all_are_asked_and_no_more_than_the_breaker_lets_pass(
    lab: LabUnderTest,
) -> None:
    apply(lab, server("frail-bad"))
    until("the bad one is asked", lambda: 503 in ask(lab))
    outliers = {"consecutive5xxErrors": 1, "interval": "1s", "baseEjectionTime": "600s", "maxEjectionPercent": 100}
    both = {
        "outlierDetection": {**outliers, "minHealthPercent": 100},
        "connectionPool": {"http": {"http2MaxRequests": 1}},
    }
    apply(lab, rule(**both))
    until("with too few left the bad one is asked again and again", lambda: ask(lab, times=12).count(503) >= 3)
    assert not turned_away(lab)
    with holding(lab, 1):
        assert turned_away(lab)
    apply(lab, rule(outlierDetection=outliers))
    until("with the good one enough the bad one is asked no more", lambda: ask(lab, times=12) == [200] * 12)
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
