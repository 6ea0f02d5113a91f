"""Spans and access log of a waypoint at a collector: OTLP by gRPC, and Zipkin's JSON; by annotations, and by Telemetry.

Real Envoy, real ztunnels on both sides, real traffic. The collector is a pod beside the mesh that says what it gets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.lab import LabUnderTest, object_yaml, pod_yaml, until
from tests.support.waypoint_lab import apply, echo, gateway_yaml, namespace_yaml, status, waypoint_lab

COLLECTOR = r"""
import concurrent.futures, http.server, json, threading
import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace
def say(kind, value):
    print(json.dumps({"got": kind, "value": value}), flush=True)
def handler(kind, asked, answer):
    def serve(request, context):
        say(kind, MessageToDict(request))
        return answer()
    return grpc.unary_unary_rpc_method_handler(serve, asked.FromString, lambda made: made.SerializeToString())
class Zipkin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def body(self):
        if "content-length" in self.headers:
            return self.rfile.read(int(self.headers["content-length"]))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found
    def do_POST(self):
        say("zipkin", json.loads(self.body()))
        self.send_response(202)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *args): pass
server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
kinds = {"trace": (trace, "Trace"), "logs": (logs, "Logs")}
for kind, (module, name) in kinds.items():
    asked = getattr(module, f"Export{name}ServiceRequest")
    answer = getattr(module, f"Export{name}ServiceResponse")
    service = f"opentelemetry.proto.collector.{kind}.v1.{name}Service"
    made = {"Export": handler(kind, asked, answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, made),))
server.add_insecure_port("0.0.0.0:4317")
server.start()
http.server.ThreadingHTTPServer(("0.0.0.0", 9411), Zipkin).serve_forever()
"""
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
CLIENT = "spiffe://cluster.local/ns/shop/sa/client"
TRACING, ACCESS_LOG = "ambient.mesh/tracing", "ambient.mesh/access-log"


MESH = """
extensionProviders:
- {name: spans, opentelemetry: {service: collector.obs.svc.cluster.local, port: 4317}}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabUnderTest]:
    mesh = tmp_path_factory.mktemp("mesh") / "mesh"
    mesh.write_text(MESH)
    ready = {"tcpSocket": {"port": 9411}, "periodSeconds": 1}
    command = [sys.executable, "-u", "-c", COLLECTOR]
    collector = pod_yaml("obs/collector", command, node="n2", labels={"app": "collector"}, readiness=ready)
    spec = {"selector": {"app": "collector"}, "ports": [{"name": "grpc", "port": 4317}]}
    found = object_yaml("v1", "Service", "collector", "obs", spec=spec)
    with waypoint_lab(namespace_yaml("obs") + collector + found, env={"control:AMBIENT_MESH_CONFIG": str(mesh)}) as lab:
        yield lab


def got(lab: LabUnderTest, kind: str) -> list[Any]:
    lines = [json.loads(line) for line in lab.run("logs", "obs/collector").stdout.splitlines() if line.startswith("{")]
    return [line["value"] for line in lines if line["got"] == kind]


def ask(lab: LabUnderTest, mark: str) -> dict[str, Any]:
    """What the application hears of a request that is part of a trace."""
    asked = ["-H", f"traceparent: 00-{TRACE}-{PARENT}-01"]
    heard: dict[str, Any] = echo(lab, "shop/client", *asked, url=f"http://web.shop/{mark}")["headers"]
    return heard


def within(value: Any, text: str) -> bool:
    return text in json.dumps(value)


def test_spans_and_log_records_reach_a_collector_and_the_trace_goes_on(lab: LabUnderTest) -> None:
    to = f"otlp {lab.ip('obs/collector')}:4317"
    apply(lab, gateway_yaml(**{TRACING: f"{to} 100%", ACCESS_LOG: to}))
    until("a span has come", lambda: ask(lab, "otlp") and got(lab, "trace"))
    heard = ask(lab, "otlp")
    assert heard["traceparent"].startswith(f"00-{TRACE}-")
    assert PARENT not in heard["traceparent"]  # the waypoint's own span is between them
    until("with who called", lambda: within(got(lab, "trace"), CLIENT))
    until("a record of the log has come", lambda: within(got(lab, "logs"), "/otlp"))
    assert within(got(lab, "logs"), CLIENT)


def test_zipkin_gets_spans_of_the_same_trace(lab: LabUnderTest) -> None:
    apply(lab, gateway_yaml(**{TRACING: f"zipkin {lab.ip('obs/collector')}:9411 100%"}))
    until("a span has come", lambda: ask(lab, "zipkin") and within(got(lab, "zipkin"), TRACE))
    assert ask(lab, "zipkin")["traceparent"].startswith(f"00-{TRACE}-")


def test_with_nobody_to_tell_the_trace_passes_untouched(lab: LabUnderTest) -> None:
    apply(lab, gateway_yaml())
    until("it is the client's own", lambda: ask(lab, "none")["traceparent"] == f"00-{TRACE}-{PARENT}-01")


def telemetry(**spec: Any) -> str:
    """For the service."""
    spec["targetRefs"] = [{"group": "", "kind": "Service", "name": "web"}]
    return object_yaml("telemetry.istio.io/v1", "Telemetry", "web", "shop", spec=spec)


def test_a_telemetry_sends_spans_of_its_service_with_its_tags_and_of_so_many_traces(lab: LabUnderTest) -> None:
    tags = {"stage": {"literal": {"value": "told-by-telemetry"}}, "team": {"header": {"name": "x-team"}}}
    said = {"providers": [{"name": "spans"}], "customTags": tags}
    apply(lab, telemetry(tracing=[{**said, "randomSamplingPercentage": 100}]))
    url = ("-H", "x-team: red")
    until("a span has come", lambda: echo(lab, "shop/client", *url) and within(got(lab, "trace"), "told-by-telemetry"))
    until("with the header's value", lambda: within(got(lab, "trace"), '"team"'))
    apply(lab, telemetry(tracing=[{**said, "disableSpanReporting": True}]))
    until("it is the client's own", lambda: ask(lab, "off")["traceparent"] == f"00-{TRACE}-{PARENT}-01")
    lab.delete(telemetry())


def test_a_telemetry_says_what_is_logged_and_all_is_counted(lab: LabUnderTest) -> None:
    def logged(mark: str) -> bool:
        return f"/{mark}" in lab.run("logs", "shop/waypoint").stdout

    def counted() -> int:
        url = f"http://{lab.ip('shop/waypoint')}:15020/stats/prometheus"
        lines = lab.exec("shop/waypoint", "curl", "-s", "-m", "20", url).stdout.splitlines()
        return sum(int(float(one.rpartition(" ")[2])) for one in lines if one.startswith("istio_requests_total"))

    def get(mark: str) -> int:
        return status(lab, "shop/client", url=f"http://web.shop/{mark}")

    apply(lab, telemetry(accessLogging=[{"filter": {"expression": "response.code >= 500"}}]))
    until("the old listener is gone", lambda: get("filter-begins") == 200 and get("fail-once/first") in (200, 503))
    before = counted()
    assert get("quiet-one") == 200
    assert get("fail-once/loud-one") == 503
    until("what failed is logged", lambda: logged("fail-once/loud-one"))
    assert not logged("quiet-one")
    until("both are counted", lambda: counted() >= before + 2)
    apply(lab, telemetry(accessLogging=[{"disabled": True}]))
    before = counted()
    assert get("fail-once/never-told") == 503
    until("it is counted", lambda: counted() > before)
    assert not logged("never-told")
    lab.delete(telemetry())
    until("it is logged again", lambda: get("told-again") == 200 and logged("told-again"))
