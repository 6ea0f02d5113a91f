"""Parts of routes: origins as a browser names them, and whom a route is on."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.objects import HTTPRoute, parse_object
from ambient.kube.read import Field
from ambient.kube.route_parts import cors, session
from ambient.kube.routing import Session
from tests.ambient.kube.test_httproutes import ROUTE


def origin(text: str) -> re.Pattern[str]:
    (found,) = cors(Field({"allowOrigins": [text]}, "cors", "x")).origins
    return re.compile(found.value if found.how == "RegularExpression" else re.escape(found.value))


@pytest.mark.parametrize(
    ("allowed", "good", "bad"),
    [
        ("https://a.example.com", "https://a.example.com", "https://axexample.com"),
        ("https://*.example.com", "https://a.b.example.com", "https://example.com"),
        ("https://*.example.com", "https://a.example.com", "https://evil.com/.example.com"),
        ("http://*.example.com:8080", "http://a.example.com:8080", "http://a.example.com"),
        ("*", "https://anything.example", "\n"),
    ],
)
def test_an_origin_fits_what_a_browser_sends(allowed: str, good: str, bad: str) -> None:
    assert origin(allowed).fullmatch(good)
    assert not origin(allowed).fullmatch(bad)


@pytest.mark.parametrize(
    "text",
    ["", "example.com", "ftp://a.b", "https://", "https://a b", "https://a:", "https://a/", f"https://*.a:{'1' * 9}"],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not an origin"):
        origin(text)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({}, Session("ambient-session")),
        ({"type": "Header", "sessionName": "x-s"}, Session("x-s", header=True)),
        ({"cookieConfig": {"lifetimeType": "Session"}}, Session("ambient-session")),
        (
            {"absoluteTimeout": "1m", "cookieConfig": {"lifetimeType": "Permanent"}},
            Session("ambient-session", ttl_ms=60_000),
        ),
    ],
)
def test_a_session_lasts_as_it_says(given: dict[str, Any], read: Session) -> None:
    assert session(Field(given, "at", "x")) == read


def test_what_the_mesh_has_said_of_a_route_is_read_and_nobody_elses_word() -> None:
    said = {"type": "Accepted", "status": "True"}
    other = {"controllerName": "example.com/x", "conditions": [{"type": "Other", "status": "True"}]}
    ours = {"controllerName": "istio.io/mesh-controller", "conditions": [said]}
    found = parse_object({**ROUTE, "status": {"parents": [other, ours]}}, "x")
    assert isinstance(found, HTTPRoute)
    assert [one.type for one in found.conditions] == ["Accepted"]
