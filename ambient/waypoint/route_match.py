"""What a route asks of a request, in Envoy's words, and which of several is asked first. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from ambient.kube.routing import PathMatch, RouteMatch, TextMatch
from ambient.waypoint.access import PEER
from ambient.waypoint.front import Route
from ambient.waypoint.tunnel import TOLD
from ambient.waypoint.typed import Message

XFCC: Final = "x-forwarded-client-cert"
"""Of this header a client's own word means nothing: what is matched is what the proxy says of the client."""


def request_match(match: RouteMatch) -> Message:
    """The match of one of Envoy's routes."""
    made = _path(match.path)
    headers = [_header(one) for one in match.headers if one.name.lower() != XFCC]
    if match.method:
        headers.append({"name": ":method", "string_match": {"exact": match.method}})
    if headers:
        made["headers"] = headers
    if match.query:
        made["query_parameters"] = [_parameter(one) for one in match.query]
    client = [{"key": TOLD, "string_match": string_match(one)} for one in match.headers if one.name.lower() == XFCC]
    if match.namespace:
        pattern = f"spiffe://[^/]+/ns/{re.escape(match.namespace)}/sa/.+"
        client.append({"key": PEER, "string_match": {"safe_regex": {"regex": pattern}}})
    if client:
        made["filter_state"] = client
    return made


def _path(path: PathMatch) -> Message:
    case = {"case_sensitive": False} if path.any_case else {}
    match path.kind:
        case "Exact":
            return {"path": path.value, **case}
        case "Prefix":
            return {"prefix": path.value, **case}
        case "RegularExpression":
            return {"safe_regex": {"regex": f"(?i){path.value}" if path.any_case else path.value}}
    prefix = path.value.rstrip("/")
    return {"path_separated_prefix": prefix, **case} if prefix else {"prefix": "/"}


def string_match(match: TextMatch) -> Message:
    match match.how:
        case "RegularExpression":
            return {"safe_regex": {"regex": match.value}}
        case "Prefix":
            return {"prefix": match.value}
        case "Present":
            return {"safe_regex": {"regex": ".*"}}
    return {"exact": match.value}


def _header(match: TextMatch) -> Message:
    if match.how == "Present":
        return {"name": match.name, "present_match": True, **({"invert_match": True} if match.absent else {})}
    made: Message = {"name": match.name, "string_match": string_match(match)}
    # A header that is not there has none of these values, so it must count as one with another.
    return {**made, "invert_match": True, "treat_missing_header_as_empty": True} if match.absent else made


def _parameter(match: TextMatch) -> Message:
    if match.how == "Present":
        return {"name": match.name, "present_match": True}
    return {"name": match.name, "string_match": string_match(match)}


def ordered(found: Iterable[Route], age: dict[str, tuple[str, str]]) -> list[Route]:
    """By the Gateway API's precedence: the more exact path, a method, more headers, more parameters, the older object
    (`age` by the route's name), then as written."""
    return sorted(found, key=lambda one: (_rank(one.match), age[one.name]))


def _rank(match: RouteMatch) -> tuple[int, int, int, int, int]:
    path = match.path
    kind = {"Exact": 0, "RegularExpression": 2}.get(path.kind, 1)
    if path.kind == "PathPrefix" and path.value == "/":
        kind = 3  # it fits everything, so an expression is the more exact
    length = len(path.value.rstrip("/")) if kind == 1 else 0
    return kind, -length, 0 if match.method else 1, -len(match.headers), -len(match.query)
