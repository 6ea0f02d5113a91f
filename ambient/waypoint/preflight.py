"""Preflights that have to be answered with the very method or headers that they ask for. Pure.

With credentials a browser takes a star for a name (Fetch, CORS protocol), and Envoy's filter knows fixed lists alone:
such a preflight has a route of its own, which answers it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from ambient.kube.routing import Cors, TextMatch
from ambient.waypoint.front import Route
from ambient.waypoint.route_filters import of_route
from ambient.waypoint.route_match import request_match
from ambient.waypoint.typed import Message, verbatim

_ORIGIN: Final = "origin"
_METHOD: Final = "access-control-request-method"
_HEADERS: Final = "access-control-request-headers"
_ANY: Final = "*"


def preflights(route: Route) -> Iterator[Message]:
    """The routes before `route` for what of its requests is a preflight of an allowed origin; none where the filter can
    answer these, or where those of other origins go to the application. One for each origin: all in one expression
    could be larger than Envoy takes."""
    cors = route.rule.cors
    if cors is None or not cors.credentials or cors.forward or _ANY not in (*cors.methods, *cors.headers):
        return
    if route.match.method not in ("", "OPTIONS"):
        return
    for origin in cors.origins:
        asked = (replace(origin, name=_ORIGIN), TextMatch(_METHOD, ".+", "RegularExpression"))
        match = replace(route.match, method="OPTIONS", headers=(*route.match.headers, *asked))
        yield {
            "name": route.name,
            "match": request_match(match),
            **of_route(replace(route.rule, cors=None)),
            "response_headers_to_add": [_header(name, value) for name, value in _allowed(cors)],
            "direct_response": {"status": 200},
        }


def _allowed(cors: Cors) -> Iterator[tuple[str, str]]:
    """In Envoy's format strings; what comes to nothing is left out by it."""
    yield "access-control-allow-origin", f"%REQ({_ORIGIN})%"
    yield "access-control-allow-credentials", "true"
    for name, listed, asked in (("methods", cors.methods, _METHOD), ("headers", cors.headers, _HEADERS)):
        if listed:
            yield f"access-control-allow-{name}", f"%REQ({asked})%" if _ANY in listed else verbatim(",".join(listed))
    if cors.exposed:
        yield "access-control-expose-headers", verbatim(",".join(cors.exposed))
    if cors.max_age_s is not None:
        yield "access-control-max-age", str(cors.max_age_s)


def _header(name: str, value: str) -> Message:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
