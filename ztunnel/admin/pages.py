"""The pages behind the three ports: admin 15000 (loopback), stats 15020, readiness 15021 (interop 7.1, 7.2, 7.5)."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ztunnel.admin.flows import FlowRing
from ztunnel.admin.http import Request, Response, text

OPENMETRICS: Final = "application/openmetrics-text;charset=utf-8;version=1.0.0"
PLAIN_METRICS: Final = "text/plain; charset=utf-8"
MOST_FLOWS: Final = 10_000
_GZIP_LEVEL: Final = 1
"""Metrics are so repetitive that more work gains little."""

_LOGGING_HELP: Final = """
usage: POST /logging\t\t\t\t\t\t(To list current level)
usage: POST /logging?level=<level>\t\t\t\t(To change global levels)
usage: POST /logging?level={mod1}={level1},{mod2}={level2}\t(To change specific mods' logging level)
"""
_COMMANDS: Final = (
    ("config_dump", "dump the current Ztunnel configuration"),
    ("connections", "open connections of every pod, both directions, with their age"),
    ("logging", "query/changing logging levels"),
    ("quitquitquit", "shut down the server"),
    ("flows", "recent connections as JSON lines; ?last=N, ?follow=1"),
)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the pages get their content and send their commands."""

    config_dump: Callable[[], Awaitable[bytes]]
    connections: Callable[[], Awaitable[bytes]]
    metrics: Callable[[bool], Callable[[], bytes]]
    """With exemplars or without; the result is called in a thread."""
    pending: Callable[[], list[str]]
    change_log_level: Callable[[str, bool], bool]
    log_filter: Callable[[], str]
    shut_down: Callable[[], None]
    flows: FlowRing


class Pages:
    """Three handlers for three servers."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def admin(self, request: Request) -> Response:
        """Port 15000."""
        match request.path:
            case "/" | "/index.html":
                return _only_get(request) or Response(200, _index(), "text/html; charset=utf-8")
            case "/config_dump":
                return _only_get(request) or Response(200, await self._sources.config_dump(), "application/json")
            case "/connections":
                return _only_get(request) or Response(200, await self._sources.connections(), "application/json")
            case "/logging":
                return self._logging(request)
            case "/quitquitquit":
                if request.method != "POST":
                    return _method_not_allowed()
                self._sources.shut_down()
                return text(200, "shutdown now\n")
            case "/flows":
                return _only_get(request) or self._flows(request)
            case "/metrics" | "/stats/prometheus":
                return await self.stats(request)
            case _:
                return text(404, "Not Found\n")

    async def stats(self, request: Request) -> Response:
        """Port 15020."""
        if request.path not in ("/metrics", "/stats/prometheus"):
            return text(404, "Not Found\n")
        refused = _only_get(request)
        if refused:
            return refused
        modern = "application/openmetrics-text" in request.headers.get("accept", "")
        packed = _takes_gzip(request.headers.get("accept-encoding", ""))
        make = self._sources.metrics(modern)
        body = await asyncio.to_thread(lambda: gzip.compress(make(), _GZIP_LEVEL) if packed else make())
        encoding = (("content-encoding", "gzip"),) if packed else ()
        return Response(200, body, OPENMETRICS if modern else PLAIN_METRICS, encoding)

    async def readiness(self, request: Request) -> Response:
        """Port 15021."""
        if request.path != "/healthz/ready":
            return text(404, "Not Found\n")
        refused = _only_get(request)
        if refused:
            return refused
        pending = self._sources.pending()
        if pending:
            return text(500, f"not ready, pending: {', '.join(pending)}\n")
        return text(200, "ready\n")

    def _logging(self, request: Request) -> Response:
        if request.method != "POST":
            return text(405, "Invalid HTTP method\n" + _LOGGING_HELP)
        reset = any(key == "reset" for key, _ in request.query)
        levels = [value for key, value in request.query if key == "level"]
        if any(key not in ("reset", "level") for key, _ in request.query):
            return text(400, "Invalid level provided\n" + _LOGGING_HELP)
        wanted = ",".join(levels)
        # An empty level is a question, as with Istio: that is how its command line asks.
        if (reset or wanted) and not self._sources.change_log_level(wanted, reset):
            return text(400, f"Invalid level provided: {wanted}\n{_LOGGING_HELP}")
        return text(200, f"current log level is {self._sources.log_filter()}\n")

    def _flows(self, request: Request) -> Response:
        query = dict(request.query)
        wanted = query.get("last", "200")
        if not wanted.isascii() or not wanted.isdigit() or query.get("follow", "0") not in ("0", "1"):
            return text(400, "usage: GET /flows?last=N&follow=0|1\n")
        last, ring = min(int(wanted), MOST_FLOWS), self._sources.flows
        if query.get("follow") != "1":
            return Response(200, ring.recent(last), "application/x-ndjson")
        if ring.crowded:
            return text(503, "too many followers\n")
        return Response(200, b"", "application/x-ndjson", stream=ring.follow(last))


def _only_get(request: Request) -> Response | None:
    return None if request.method in ("GET", "HEAD") else _method_not_allowed()


def _takes_gzip(accepted: str) -> bool:
    """What an Accept-Encoding header says about gzip (RFC 9110 section 12.5.3); without one, plain text goes out."""
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _method_not_allowed() -> Response:
    return text(405, "Method Not Allowed\n")


def _index() -> bytes:
    rows = "".join(f'<tr><td><a href="{path}">{path}</a></td><td>{what}</td></tr>\n' for path, what in _COMMANDS)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head><title>Ztunnel Admin</title></head>\n<body>\n'
        f"<table>\n<tr><th>Command</th><th>Description</th></tr>\n{rows}</table>\n</body>\n</html>\n"
    ).encode()
