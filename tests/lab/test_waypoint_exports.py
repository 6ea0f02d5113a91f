"""Spans and access log of a waypoint at a collector: OTLP by gRPC, and Zipkin's JSON.

Real Envoy, real ztunnels on both sides, real traffic. The collector is a pod beside the mesh that says what it gets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.lab import LabUnderTest, pod_yaml, until
from tests.support.waypoint_lab import apply, echo, gateway_yaml, namespace_yaml, waypoint_lab

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


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    ready = {"tcpSocket": {"port": 9411}, "periodSeconds": 1}
    collector = pod_yaml("obs/collector", [sys.executable, "-u", "-c", COLLECTOR], node="n2", readiness=ready)
    with waypoint_lab(namespace_yaml("obs") + collector) as lab:
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
