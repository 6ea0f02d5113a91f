"""A receiver of OTLP traces over HTTP, stricter than real ones: what is not exactly the JSON mapping fails its test."""

from __future__ import annotations

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_SPAN_KEYS = {"traceId", "spanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano", "attributes"}
_MORE_SPAN_KEYS = {"parentSpanId", "status"}
_TRACE, _SPAN, _NANOS = (re.compile(p) for p in (r"[0-9a-f]{32}", r"[0-9a-f]{16}", r"[0-9]{19}"))


class Receiver:
    """Listens on a port of its own unless told another, in the network namespace that the thread is in. `answers`:
    (status, headers, body) for the next requests, then 200."""

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self.spans: list[dict[str, Any]] = []
        self.resources: list[dict[str, str]] = []
        self.requests: list[dict[str, str]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.faults: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status, headers, answer = receiver._take(self.path, dict(self.headers.items()), body)
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Tests read `requests` instead."""

        self._server = ThreadingHTTPServer(address, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        assert not self.faults, self.faults

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name.lower(): value for name, value in headers.items()}
        self.requests.append({**headers, ":path": path})
        status, more, answer = self.answers.pop(0) if self.answers else (200, {}, b"{}")
        try:
            assert headers["content-type"] == "application/json"
            if headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            spans, resource = read_request(json.loads(body))
        except (AssertionError, KeyError, ValueError) as error:
            self.faults.append(repr(error))
            return 400, {}, b"{}"
        if 200 <= status < 300:
            self.spans += spans
            self.resources.append(resource)
        return status, more, answer


def read_request(request: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The spans, with attributes as a mapping, and the resource. Raises AssertionError for any other form."""
    assert request.keys() == {"resourceSpans"}
    ((resource, scopes),) = [(one["resource"], one["scopeSpans"]) for one in request["resourceSpans"]]
    (scope,) = scopes
    assert scope["scope"]["name"]
    assert scope["scope"]["version"]
    spans = [_span(span) for span in scope["spans"]]
    assert spans
    return spans, {key: str(value) for key, value in _attributes(resource["attributes"]).items()}


def _span(span: dict[str, Any]) -> dict[str, Any]:
    assert _SPAN_KEYS <= span.keys() <= _SPAN_KEYS | _MORE_SPAN_KEYS, span.keys()
    assert _TRACE.fullmatch(span["traceId"])
    assert int(span["traceId"], 16)
    assert _SPAN.fullmatch(span["spanId"])
    assert int(span["spanId"], 16)
    assert _SPAN.fullmatch(span.get("parentSpanId", "0" * 16))
    assert span["kind"] in (1, 2, 3, 4, 5)
    assert _NANOS.fullmatch(span["startTimeUnixNano"])
    assert _NANOS.fullmatch(span["endTimeUnixNano"])
    assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
    assert span.get("status", {"code": 2})["code"] in (0, 1, 2)
    return {**span, "attributes": _attributes(span["attributes"])}


def _attributes(rows: list[dict[str, Any]]) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for row in rows:
        assert row.keys() == {"key", "value"}
        ((kind, value),) = row["value"].items()
        assert kind in ("stringValue", "intValue")
        assert isinstance(value, str)
        assert row["key"] not in found
        found[row["key"]] = int(value) if kind == "intValue" else value
    return found
